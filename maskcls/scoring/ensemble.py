"""From the models of a run to its scores and its answers.

A target is what is voted on and scored: the joint class, or one attribute.

Models vote where they speak of the same thing: joint models alone on the 18 classes, any other
set on mask, gender and age apart (a joint model through its marginals), and the three answers make
up the joint class.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from maskcls import labels
from maskcls.labels import ATTRIBUTES, NUM_JOINT, FloatArray, IntArray, Task
from maskcls.scoring import metrics, voting
from maskcls.scoring.voting import FittedVote

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ModelVotes:
    """A model's predictions for new photos: ``image_ids`` and probabilities [N, K] of each head."""

    task: Task
    fold: int
    image_ids: list[str]
    probabilities: Mapping[str, FloatArray]


def targets(tasks: Iterable[Task]) -> dict[str, list[Task]]:
    """Target -> the tasks whose models vote on it, in the order of ``Task``."""
    chosen = set(tasks)
    present = [task for task in Task if task in chosen]
    if present == [Task.JOINT]:
        return {"joint": present}
    voters = {
        attribute: [task for task in present if labels.tells(task, attribute)]
        for attribute in ATTRIBUTES
    }
    return {attribute: tasks_ for attribute, tasks_ in voters.items() if tasks_}


def fit(name: str, out_of_fold: pd.DataFrame) -> dict[str, FittedVote]:
    """Fit the ensemble ``name`` for every target on out-of-fold rows (see the worker's table)."""
    return {
        target: voting.fit(name, *_stacked(out_of_fold, target, tasks)[:2])
        for target, tasks in targets(_tasks(out_of_fold)).items()
    }


def to_json(fitted: Mapping[str, FittedVote]) -> dict[str, Any]:
    """Fitted votes as plain data."""
    return {target: dataclasses.asdict(vote) for target, vote in fitted.items()}


def from_json(content: Mapping[str, Any]) -> dict[str, FittedVote]:
    """The inverse of ``to_json``."""
    return {target: FittedVote(**vote) for target, vote in content.items()}


def out_of_fold_answers(name: str, out_of_fold: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """What the ensemble would have said of each training photo, by models that never saw its
    person: photo, person, and truth and prediction of each attribute and of the joint class.

    Ensembles that learn are fitted on other people (nested cross-validation).
    """
    answers: pd.DataFrame | None = None
    for target, tasks in targets(_tasks(out_of_fold)).items():
        probabilities_MNK, truth_N, photos = _stacked(out_of_fold, target, tasks)
        if name in ("hard", "soft"):
            predicted_N, _ = voting.apply(voting.fit(name, probabilities_MNK, truth_N),
                                          probabilities_MNK)  # fmt: skip
        else:
            _, predicted_N = voting.nested_score(
                name, probabilities_MNK, truth_N, photos["person"].to_numpy(), seed=seed
            )
        part = photos.assign(**{f"{target}_truth": truth_N, f"{target}_predicted": predicted_N})
        answers = part if answers is None else answers.merge(part, on=["photo", "person"])
    assert answers is not None, "no task"
    for kind in ("truth", "predicted"):
        if f"joint_{kind}" in answers:
            parts = labels.decode(answers[f"joint_{kind}"].to_numpy())
            answers = answers.assign(**{f"{a}_{kind}": parts[a] for a in ATTRIBUTES})
        elif all(f"{a}_{kind}" in answers for a in ATTRIBUTES):
            answers[f"joint_{kind}"] = labels.encode(
                *(answers[f"{attribute}_{kind}"].to_numpy() for attribute in ATTRIBUTES)
            )
    return answers


def attribute_probabilities(
    out_of_fold: pd.DataFrame, attribute: str
) -> tuple[FloatArray, IntArray, pd.DataFrame] | None:
    """Mean probabilities [N, K] of the models that tell ``attribute``, by models that never saw the
    person; the given classes [N]; and the photos (columns ``photo`` and ``person``).

    None where no model tells it.
    """
    present = _tasks(out_of_fold)
    voters = [task for task in present if labels.tells(task, attribute)]
    if not voters:
        return None
    probabilities_MNK, given_N, photos = _stacked(out_of_fold, attribute, voters)
    return probabilities_MNK.mean(axis=0), given_N, photos


def scores(answers: pd.DataFrame, *, seed: int) -> dict[str, dict[str, Any]]:
    """Macro F1 with its 95 % interval over people, accuracy, precision and recall, for ``joint``
    and each attribute that was answered; and ``absent_classes``, the names of classes that nobody
    has, where there are any: the means are over the others."""
    result: dict[str, dict[str, Any]] = {}
    for target, count in {"joint": NUM_JOINT, **{a: len(v) for a, v in ATTRIBUTES.items()}}.items():
        if f"{target}_predicted" not in answers:
            continue
        truth, predicted = (
            answers[f"{target}_{kind}"].to_numpy() for kind in ("truth", "predicted")
        )
        low, high = metrics.bootstrap_interval(
            truth, predicted, answers["person"].to_numpy(), count, seed=seed
        )
        result[target] = {
            **metrics.scores(metrics.confusion(truth, predicted, count)),
            "macro_f1_interval": [low, high],
        }
        names = labels.class_names(target)
        absent = [names[k] for k in sorted(set(range(count)) - set(truth.tolist()))]
        if absent:
            result[target]["absent_classes"] = absent
    return result


def vote(fitted: Mapping[str, FittedVote], models: Sequence[ModelVotes]) -> pd.DataFrame:
    """The ensemble's answers: ``image_id``, a column for each target, and ``ans`` (the joint class)
    where the models tell all of it.

    Every photo must have been seen by every model. Raises ValueError where not.
    """
    import pandas as pd

    image_ids = sorted(models[0].image_ids)
    voted = answers(
        fitted, [model.task for model in models], [_aligned(model, image_ids) for model in models]
    )
    classes = {target: answer.classes_N for target, answer in voted.items()}
    table = pd.DataFrame({"image_id": image_ids, **classes})
    return table.assign(ans=table["joint"]) if "joint" in table else table


class Answer(NamedTuple):
    """What an ensemble says of one target: classes [N] and probabilities [N, K] (see
    ``voting.mean_probabilities``); none of a joint class that three attributes make up."""

    classes_N: IntArray
    probabilities_NK: FloatArray | None


def answers(
    fitted: Mapping[str, FittedVote],
    tasks: Sequence[Task],
    probabilities: Sequence[Mapping[str, Any]],
) -> dict[str, Answer]:
    """The vote on N photos: target -> its answer, the joint class and its attributes included.

    ``tasks`` are those of the models, ``probabilities`` what each says: [N, K] of each of its
    heads. Raises what ``voting.apply`` raises.
    """
    voted: dict[str, Answer] = {}
    for target, voters in targets(tasks).items():
        chosen = [m for m, task in enumerate(tasks) if task in voters]
        said_MNK = np.stack([for_target(probabilities[m], tasks[m], target) for m in chosen])
        routes_M = [voters.index(tasks[m]) for m in chosen]
        classes_N, _ = voting.apply(fitted[target], said_MNK, routes_M)
        voted[target] = Answer(
            classes_N, voting.mean_probabilities(fitted[target], said_MNK, routes_M)
        )
    if "joint" in voted:
        joint = voted["joint"]
        assert joint.probabilities_NK is not None
        for attribute, classes_N in labels.decode(joint.classes_N).items():
            marginal_NK = labels.marginal(joint.probabilities_NK, attribute)
            voted[attribute] = Answer(classes_N, marginal_NK)
    elif set(voted) == set(ATTRIBUTES):
        parts = {attribute: voted[attribute].classes_N for attribute in ATTRIBUTES}
        voted["joint"] = Answer(labels.encode(**parts), None)
    return voted


def _aligned(model: ModelVotes, image_ids: list[str]) -> dict[str, FloatArray]:
    """A model's probabilities [N, K] of each head, in the order of ``image_ids``."""
    place = {image_id: i for i, image_id in enumerate(model.image_ids)}
    missing = [image_id for image_id in image_ids if image_id not in place]
    if missing or len(place) != len(image_ids):
        raise ValueError(
            f"the model of task {model.task}, fold {model.fold} has not seen the same photos as "
            f"the others: {len(missing)} missing, {len(place)} seen, such as {missing[:3]}"
        )
    order = [place[image_id] for image_id in image_ids]
    return {head: np.asarray(said)[order] for head, said in model.probabilities.items()}


def for_target(probabilities: Mapping[str, Any], task: Task, target: str) -> FloatArray:
    """Probabilities [N, K] of ``target`` by a model of ``task``, from those of its heads."""
    if task is Task.JOINT and target != "joint":
        return labels.marginal(np.asarray(probabilities["joint"], float), target)
    return np.asarray(probabilities[target], float)


def _tasks(out_of_fold: pd.DataFrame) -> list[Task]:
    return [Task(task) for task in out_of_fold["task"].unique()]


def _stacked(
    out_of_fold: pd.DataFrame, target: str, tasks: Sequence[Task]
) -> tuple[FloatArray, IntArray, pd.DataFrame]:
    """Out-of-fold probabilities [routes, N, K], truth [N] and the photos, which all routes saw."""
    import pandas as pd

    tables = []
    for task in tasks:
        head = "joint" if task is Task.JOINT else target
        rows = out_of_fold[(out_of_fold["task"] == task) & (out_of_fold["head"] == head)]
        tables.append(rows.set_index("photo").sort_index())
    photos = tables[0].index
    for table in tables[1:]:
        photos = photos.intersection(table.index)
    if photos.empty:
        raise ValueError(
            f"the tasks {', '.join(tasks)} answer {target} together, but have no photo in common: "
            "train them on the same folds"
        )
    first = tables[0].loc[photos]
    stacked = [
        for_target(
            {
                ("joint" if task is Task.JOINT else target): np.stack(
                    table.loc[photos, "probabilities"]
                )
            },
            task,
            target,
        )
        for task, table in zip(tasks, tables, strict=True)
    ]
    truth_N = first["truth"].to_numpy(np.int64)
    if tasks[0] is Task.JOINT and target != "joint":
        truth_N = labels.decode(truth_N)[target]
    return (
        np.stack(stacked),
        truth_N,
        pd.DataFrame({"photo": photos, "person": first["person"].to_numpy()}),
    )
