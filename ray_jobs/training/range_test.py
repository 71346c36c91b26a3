"""What a Train worker does for a learning-rate range test; see ``maskcls.learning.range_test``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from maskcls.learning import range_test
from maskcls.learning.learner import options
from ray_jobs.data import stream as pipeline
from ray_jobs.training import fit
from ray_jobs.training.job import Job
from ray_jobs.training.session import Session


def run(job: Job, session: Session) -> dict[str, Any]:
    """The ``losses`` of steps whose rates rise, until they diverge; nothing is written."""
    train = job.recipe.train.model_copy(update={"lr": range_test.LOWEST})
    recipe = job.recipe.model_copy(update={"train": train})
    learner, plan, _ = fit.begin(replace(job, recipe=recipe), session)
    learner.follow(range_test.factor)
    assert job.train is not None
    epochs = -(-range_test.STEPS // plan.steps)
    stream = pipeline.batches(
        job.train, plan, options(recipe.augment), first_epoch=1, last_epoch=epochs,
        title=job.title, streams=session.streams, wait_for_cpu=session.wait_for_cpu,
    )  # fmt: skip
    # As the last epoch, throughout: in the first ones parts of the backbone may be frozen.
    learner.start_epoch(train.epochs, session.rank)
    losses_S: list[float] = []
    while len(losses_S) < range_test.STEPS:
        losses_S.append(float(fit.step(learner, next(stream), plan)))
        if session.shared(range_test.diverged(losses_S)):
            break
        session.beat(len(losses_S), range_test.STEPS)
    return {"losses": losses_S}
