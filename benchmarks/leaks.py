"""Whether memory grows: sweep after sweep in one cluster and one driver.

    python -m benchmarks.leaks [--sweeps 10]

Prints a line a sweep: memory of this driver (resident, MB), bytes in the object store, actors and
reservations alive. Flat after the first sweeps is as it should be.
"""

from __future__ import annotations

import argparse
import gc
import logging
import tempfile
from pathlib import Path

import psutil
import ray
from ray._private.state import actors
from ray.util import placement_group_table

from benchmarks.disturbed import Sweep
from examples.drawn_faces import draw
from maskcls.config.load import load
from ray_jobs.cluster import connect
from ray_jobs.run import state
from ray_jobs.run.folder import claim
from ray_jobs.sweep import sweep


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sweeps", type=int, default=10)
    arguments = parser.parse_args()
    logging.getLogger("ray_jobs").setLevel(logging.WARNING)
    connect.connect()
    print("sweep  driver MB  object store MB  actors  reservations", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = draw.draw(folder / "data", people=42, eval_people=6, height=64, width=48)
        for number in range(1, arguments.sweeps + 1):
            words = [f"data.root={root}", f"data.cache={folder / 'cache'}"]
            words += Sweep().all_words()
            config = load([], [*words, f"run.dir={folder / str(number)}"]).config
            with (
                claim(config, config.tasks) as run,
                state.keeping(run.place, "sweep") as board,
            ):
                sweep(config, run, board)
            print("{:5}  {:9.0f}  {:15.1f}  {:6}  {:12}".format(number, *alive()), flush=True)


def alive() -> tuple[float, float, int, int]:
    """Driver memory in MB, object store in MB, actors, reservations."""
    gc.collect()
    used = sum(
        node["Resources"].get("object_store_memory", 0.0) for node in ray.nodes()
    ) - ray.available_resources().get("object_store_memory", 0.0)
    return (
        psutil.Process().memory_info().rss / 1e6,
        used / 1e6,
        sum(actor["State"] == "ALIVE" for actor in actors().values()),
        sum(group["state"] != "REMOVED" for group in placement_group_table().values()),
    )


if __name__ == "__main__":
    main()
