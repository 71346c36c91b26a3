"""python -m ray_jobs.prepare: manifest, folds, and every photo decoded and resized once."""

from __future__ import annotations

import logging

from maskcls.config.load import from_command_line
from ray_jobs.data.photos import image_settings, prepare
from ray_jobs.run import arguments, console

log = logging.getLogger(__name__)


def main() -> None:
    config = from_command_line(__doc__ or "", arguments.words())
    with console.report_errors("prepare", config):
        tables = config.place(config.run.dir)
        data = prepare(config, image_settings(config, config.tasks), tables.local, tables.uri)
        for photos in filter(None, (data.train, data.evaluation)):
            log.info("%s", photos.table)
            for source in photos.images.values():
                log.info("  %s", source.folder)


if __name__ == "__main__":
    main()
