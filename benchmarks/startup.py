"""Time outside training: a Ray Train run a job, against lanes that take one job after the other.

    python -m benchmarks.startup [--jobs 6]

Both train the same tiny jobs (a second each) on the same cluster in one run of this program; the
ratio of the time that is not training is what counts. Results: RESULTS.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from maskcls import demo_faces
from maskcls.config_load import load
from maskcls.labels import Task
from ray_jobs import cluster, console, driver, packing
from ray_jobs.job import Job
from ray_jobs.prepare import forms_of, prepare
from ray_jobs.run_folder import RunFolder, make_jobs

WORDS = (
    "tasks=[age]", "folds.count=3", "image.size=[32,24]", "model.name=test_efficientnet",
    "train.epochs=2", "folds.allow_thin=true",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=6)
    arguments = parser.parse_args()
    console.setup()
    cluster.connect()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = demo_faces.draw(folder / "data", people=42, eval_people=6, height=64, width=48)
        config = load([], [f"data.root={root}", f"data.cache={folder / 'cache'}", *WORDS]).config
        data = prepare(config, forms_of(config, [Task.AGE]), folder).without_evaluation()
        (first, *_) = make_jobs(config, RunFolder(folder), data, [(Task.AGE, 0)])
        # One lane: a job a run and all jobs in one run then differ in nothing else.
        resources = config.resources.model_copy(update={"jobs_at_once": 1})

        def run(kind: str, groups: Sequence[Sequence[Job]]) -> float:
            """Seconds outside training of one job."""
            began, training = time.monotonic(), 0.0
            for group in groups:
                plan = packing.plan(resources, len(group), cluster.nodes())
                with driver.lanes(plan, resources, folder=folder / kind) as lanes:
                    for outcome in lanes.run(group).values():
                        assert outcome.report, outcome.reason
                        training += outcome.report["training_seconds"]
            return (time.monotonic() - began - training) / arguments.jobs

        def jobs(kind: str) -> list[Job]:
            return [
                replace(first, name=f"{kind}{n}", folder=folder / kind / str(n))
                for n in range(arguments.jobs)
            ]

        run("warm-up", [jobs("warm-up")[:1]])
        alone = run("alone", [[job] for job in jobs("alone")])
        lanes = run("lanes", [jobs("lanes")])
        steady = [job.done() or {} for job in jobs("lanes")[1:]]
        inside = sum(r["seconds"] - r["training_seconds"] for r in steady) / len(steady)
        print(f"a run a job:  {alone:6.2f} s outside training, a job")
        print(f"lanes:        {lanes:6.2f} s, {alone / lanes:.1f} times less; start included")
        print(f"steady state: {inside:6.2f} s, what a further job in a warm lane costs")


if __name__ == "__main__":
    main()
