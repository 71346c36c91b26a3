"""The voting actor counts once, and remembers after its own death."""

import numpy as np
import pytest

from maskcls.scoring import ensemble as results
from maskcls.scoring.voting import FittedVote
from maskcls.storage import files
from ray_jobs.run.votes import _Ensemble

FITTED = {"age": FittedVote("hard", 1, 3, {"weights": [1.0]})}


def one_hot(*classes):
    return {"age": np.eye(3)[list(classes)]}


def test_what_is_said_twice_counts_once_and_the_later_word_counts(tmp_path):
    ensemble = _Ensemble(tmp_path)
    ensemble.add("age", 0, ["a", "b"], one_hot(0, 0))
    ensemble.add("age", 0, ["a", "b"], one_hot(0, 0))
    ensemble.add("age", 0, ["a", "b"], one_hot(0, 2))
    answers = ensemble.vote(FITTED, [("age", 0)])
    assert dict(zip(answers["image_id"], answers["age"], strict=True)) == {"a": 0, "b": 2}


def test_it_knows_who_has_spoken(tmp_path):
    ensemble = _Ensemble(tmp_path)
    ensemble.add("age", 1, ["a"], one_hot(0))
    assert ensemble.has("age", 1)
    assert not ensemble.has("age", 0)
    assert not ensemble.has("mask", 1)


def test_models_that_saw_other_photos_are_not_mixed(tmp_path):
    ensemble = _Ensemble(tmp_path)
    ensemble.add("age", 0, ["a", "b"], one_hot(0, 0))
    ensemble.add("age", 1, ["a"], one_hot(0))
    with pytest.raises(ValueError, match="fold 1 has not seen the same photos"):
        ensemble.vote(FITTED, [("age", 0), ("age", 1)])


@pytest.mark.ray
def test_it_survives_its_own_death(cluster, tmp_path):
    import ray

    from ray_jobs.run.votes import Ensemble

    ensemble = Ensemble.remote(tmp_path)
    ray.get(ensemble.add.remote("age", 0, ["a", "b"], one_hot(0, 1)))
    ray.get(ensemble.add.remote("age", 1, ["a", "b"], one_hot(0, 1)))
    ray.kill(ensemble, no_restart=False)
    ray.get(ensemble.add.remote("age", 2, ["a", "b"], one_hot(0, 2)))
    answers = ray.get(ensemble.vote.remote(FITTED, [("age", fold) for fold in range(3)]))
    assert answers["age"].tolist() == [0, 1]
    ray.kill(ensemble)


def test_a_restart_reads_back_exactly_what_was_said(tmp_path):
    rng = np.random.default_rng(0)
    said = rng.dirichlet(np.ones(3), size=50)
    keys = [f"{n}.jpg" for n in range(50)]
    _Ensemble(tmp_path).add("age", 0, keys, {"age": said})
    again = _Ensemble(tmp_path).vote({"age": FittedVote("soft", 1, 3, {"weights": [1.0]})},
                                     [("age", 0)])  # fmt: skip
    expected = dict(zip(keys, said.argmax(axis=1), strict=True))
    assert dict(zip(again["image_id"], again["age"], strict=True)) == expected
    assert results.targets(["age"]) == {"age": ["age"]}


def test_a_write_that_was_cut_off_is_not_read(tmp_path):
    _Ensemble(tmp_path).add("age", 0, ["a"], one_hot(2))
    with files.replacing(tmp_path / "age-fold1.parquet") as temporary:
        left = temporary.name  # as SIGKILL leaves it
    (tmp_path / left).write_bytes(b"PAR1")
    (tmp_path / "age-fold1.parquet").unlink()
    assert not _Ensemble(tmp_path).has("age", 1)
