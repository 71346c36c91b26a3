"""python -m ray_jobs.tune task=age run.dir=RUN: search for a better recipe with ASHA.

The recipe's own values are the first trial. best.yaml can be given to sweep and train as it is:
--config configs/sweep.yaml --config RUN/best.yaml
"""

from __future__ import annotations

import logging
from pathlib import Path

from maskcls.config import search_space
from maskcls.config.load import from_command_line
from ray_jobs.cluster import connect
from ray_jobs.data import sources
from ray_jobs.run import arguments, console, state, weights
from ray_jobs.run.folder import claim
from ray_jobs.search.run import check_ends, check_search, search, searched_images

log = logging.getLogger(__name__)


def main() -> None:
    config = from_command_line(__doc__ or "", arguments.words())
    with console.report_errors("tune", config):
        if config.task is None:
            raise ValueError("task is not set: say which, as in task=age")
        if not isinstance(config.run.dir, Path):
            raise ValueError(
                f"run.dir={config.run.dir}: a search lives in a folder that every node sees; "
                "data.root may be a URI, and best.yaml serves a sweep with any run.dir"
            )
        recipe = config.recipe(config.task)
        space = search_space.parse(config.tune.space, recipe)
        images = list(searched_images(space, recipe))
        check_ends(config, space, recipe)
        sources.check(config)
        with claim(config, []) as folder, state.keeping(folder.place, "tune") as board:
            console.setup(folder.log)
            # Tune logs the traceback of a failed trial; the ledger tells its reason in a line.
            logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
            check_search(config, folder)
            weights.check(config, [config.task], folder)
            connect.connect()
            search(config, config.task, space, images, folder, board)


if __name__ == "__main__":
    main()
