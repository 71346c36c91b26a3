"""python -m ray_jobs.predict RUN data.root=PHOTOS: a finished run on new photos.

PHOTOS is a folder of photos, or one that holds them in eval/images.
Models, their preprocessing and their vote come from the run; data.root, data.cache, data.bad_eval
and resources.* from this command. Each photo is decoded once for all models.
"""

from __future__ import annotations

import logging

from maskcls.config.load import from_command_line
from maskcls.config.schema import Config
from maskcls.learning import checkpoint
from maskcls.scoring import ensemble as results
from maskcls.storage import files
from ray_jobs.cluster import connect, nodes, packing
from ray_jobs.cluster.errors import RunFailed
from ray_jobs.data.photos import Photos, prepare_eval
from ray_jobs.run import arguments, console
from ray_jobs.run.folder import RunFolder, reading
from ray_jobs.run.jobs import answer, listed, training, votes_name
from ray_jobs.run.votes import Ensemble
from ray_jobs.training.job import Job

log = logging.getLogger(__name__)


def main() -> None:
    config = from_command_line(__doc__ or "", arguments.words())
    with console.report_errors("predict", config), reading(config) as run:
        console.show_as_uri(run.place)
        predict(config, run)


def predict(config: Config, run: RunFolder) -> None:
    """Answer for the photos in data.root; results go to a folder of the run.

    Raises FileNotFoundError where the run is not finished and RunFailed where a model fails.
    """
    if not run.ensemble.is_file():
        raise FileNotFoundError(f"{run.path}: no finished run here (no {run.ensemble.name})")
    checkpoints = [
        checkpoint.read_info(path.parent) for path in sorted(run.path.glob("jobs/*/job.json"))
    ]
    images = [info.recipe.image for info in checkpoints]
    connect.connect()
    packing.plan(config.resources, len(checkpoints), nodes.nodes())
    tables = run.place / "new_photos"
    evaluation = prepare_eval(config, images, tables.local, tables.uri, plain=True)
    if evaluation is None:
        raise FileNotFoundError(f"data.root={config.data.root}: no photos to predict")
    out = run.place / "predictions" / evaluation.digest
    jobs = [_job(config, run, info, evaluation) for info in checkpoints]
    votes = run.place / "votes" / votes_name(evaluation)
    ensemble = Ensemble.options(label_selector=nodes.on_this_node()).remote(votes.local, votes.uri)
    with training(config, out.local, jobs, ensemble, out.uri) as (failed, _):
        pass  # the lanes have no more to do
    if failed:
        raise RunFailed(f"models failed, so nothing is written:\n{listed(failed)}")
    fitted = results.from_json(files.read_json(run.ensemble))
    limits = checkpoints[0].recipe.labels.age_limits
    answer(fitted, jobs, evaluation, ensemble, out.local, run.path / "manifest.parquet", limits)
    out.push()


def _job(config: Config, run: RunFolder, info: checkpoint.Info, evaluation: Photos) -> Job:
    return Job(
        name=f"{info.task}-fold{info.fold}",
        task=info.task,
        fold=info.fold,
        recipe=info.recipe,
        seed=info.seed,
        identity=info.identity,
        folder=run.job(info.task, info.fold),
        train=None,
        evaluation=evaluation.images[info.recipe.image],
        group=run.path.name,
        tracking=config.tracking,
        uri=(run.place / "jobs" / f"{info.task}-fold{info.fold}").uri,
    )


if __name__ == "__main__":
    main()
