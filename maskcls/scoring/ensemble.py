"""From the models of a run to its scores and its answers.

A target is what is voted on and scored: the joint class, or one attribute.

Models vote where they speak of the same thing: joint models alone on the 18 classes, any other
set on mask, gender and age apart (a joint model through its marginals), and the three answers make
up the joint class.

A route is the models of one task of one run. The models of several runs vote together where each
out-of-fold row and each ``ModelVotes`` names its run; within one run nothing does.
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
    run: str = ""


Route = tuple[str, Task]
"""(run, task): the models that answer each training photo once, together."""


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


def fit(name: str, out_of_fold: pd.DataFrame, *, offsets: bool = False) -> dict[str, FittedVote]:
    """Fit the ensemble ``name`` for every target on out-of-fold rows (see the worker's table).

    ``offsets`` tries decision offsets for macro F1 too: see ``voting.fit``.
    """
    fitted = {}
    for target, routes in voters(routes_of(out_of_fold)).items():
        probabilities_MNK, truth_N, photos = stacked(out_of_fold, target, routes)
        people_N = photos["person"].to_numpy()
        fitted[target] = voting.fit(name, probabilities_MNK, truth_N, people_N, offsets=offsets)
    return fitted


def voters(routes: Sequence[Route]) -> dict[str, list[Route]]:
    """Target -> the routes that vote on it: by run, then in the order of ``Task``."""
    return {
        target: [route for route in routes if route[1] in tasks]
        for target, tasks in targets(task for _, task in routes).items()
    }


def routes_of(out_of_fold: pd.DataFrame) -> list[Route]:
    """The routes of a table: runs by name, tasks in the order of ``Task``."""
    pairs = out_of_fold[["run", "task"]] if "run" in out_of_fold else out_of_fold[["task"]]
    found = {("", *pair)[-2:] for pair in pairs.drop_duplicates().itertuples(index=False)}
    return sorted(((run, Task(task)) for run, task in found), key=_place)


def _place(route: Route) -> tuple[str, int]:
    return route[0], list(Task).index(route[1])


def to_json(fitted: Mapping[str, FittedVote]) -> dict[str, Any]:
    """Fitted votes as plain data."""
    return {target: dataclasses.asdict(vote) for target, vote in fitted.items()}


def from_json(content: Mapping[str, Any]) -> dict[str, FittedVote]:
    """The inverse of ``to_json``."""
    return {target: FittedVote(**vote) for target, vote in content.items()}


def out_of_fold_answers(
    name: str, out_of_fold: pd.DataFrame, *, seed: int, offsets: bool = False
) -> pd.DataFrame:
    """What the ensemble would have said of each training photo, by models that never saw its
    person: photo, person, and truth and prediction of each attribute and of the joint class. Both
    are ``MISSING`` where the photo has no such label, and for the joint class where one of three
    is; the prediction, too.

    Ensembles that learn, and offsets, are fitted on other people (nested cross-validation).
    """
    answers: pd.DataFrame | None = None
    for target, routes in voters(routes_of(out_of_fold)).items():
        probabilities_MNK, truth_N, photos = stacked(out_of_fold, target, routes)
        if name in ("hard", "soft") and not offsets:
            predicted_N, _ = voting.apply(voting.fit(name, probabilities_MNK, truth_N),
                                          probabilities_MNK)  # fmt: skip
        else:
            _, predicted_N = voting.nested_score(
                name, probabilities_MNK, truth_N, photos["person"].to_numpy(), seed=seed,
                offsets=offsets,
            )  # fmt: skip
        part = photos.assign(**{f"{target}_truth": truth_N, f"{target}_predicted": predicted_N})
        answers = part if answers is None else _joined(answers, part)
    assert answers is not None, "no task"
    for kind in ("truth", "predicted"):
        if f"joint_{kind}" in answers:
            parts = labels.decode(answers[f"joint_{kind}"].to_numpy())
            answers = answers.assign(**{f"{a}_{kind}": parts[a] for a in ATTRIBUTES})
        elif all(f"{a}_{kind}" in answers for a in ATTRIBUTES):
            answers[f"joint_{kind}"] = labels.joint_class(
                *(answers[f"{attribute}_{kind}"].to_numpy() for attribute in ATTRIBUTES)
            )
    return answers


def _joined(answers: pd.DataFrame, part: pd.DataFrame) -> pd.DataFrame:
    """Both, of all photos of either; what one of them does not know is ``MISSING``."""
    joined = answers.merge(part, on=["photo", "person"], how="outer", sort=True)
    numbers = [name for name in joined if name not in ("photo", "person")]
    return joined.fillna(dict.fromkeys(numbers, labels.MISSING)).astype(
        dict.fromkeys(numbers, "int64")
    )


def attribute_probabilities(
    out_of_fold: pd.DataFrame, attribute: str
) -> tuple[FloatArray, IntArray, pd.DataFrame] | None:
    """Mean probabilities [N, K] of the models that tell ``attribute``, by models that never saw the
    person; the given classes [N]; and the photos (columns ``photo`` and ``person``).

    None where no model tells it.
    """
    routes = [route for route in routes_of(out_of_fold) if labels.tells(route[1], attribute)]
    if not routes:
        return None
    probabilities_MNK, given_N, photos = stacked(out_of_fold, attribute, routes)
    return probabilities_MNK.mean(axis=0), given_N, photos


def scores(
    answers: pd.DataFrame, *, seed: int, age_limits: labels.AgeLimits = labels.AGE_BAND_STARTS
) -> dict[str, dict[str, Any]]:
    """Macro F1 with its 95 % interval over people, accuracy, precision and recall, for ``joint``
    and each attribute that was answered, on the ``photos`` of the ``people`` who have that label;
    and ``absent_classes``, the names of classes that nobody
    has, where there are any: the means are over the others."""
    result: dict[str, dict[str, Any]] = {}
    for target, count in {"joint": NUM_JOINT, **{a: len(v) for a, v in ATTRIBUTES.items()}}.items():
        if f"{target}_predicted" not in answers:
            continue
        labelled = answers[answers[f"{target}_truth"] != labels.MISSING]
        if labelled.empty:  # no photo has all three labels
            continue
        truth, predicted = (
            labelled[f"{target}_{kind}"].to_numpy() for kind in ("truth", "predicted")
        )
        low, high = metrics.bootstrap_interval(
            truth, predicted, labelled["person"].to_numpy(), count, seed=seed
        )
        result[target] = {
            **metrics.scores(metrics.confusion(truth, predicted, count)),
            "macro_f1_interval": [low, high],
            "photos": len(labelled),
            "people": int(labelled["person"].nunique()),
        }
        names = labels.class_names(target, age_limits)
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
        fitted,
        [(model.run, model.task) for model in models],
        [_aligned(model, image_ids) for model in models],
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
    routes_M: Sequence[Route],
    probabilities_M: Sequence[Mapping[str, Any]],
) -> dict[str, Answer]:
    """The vote on N photos: target -> its answer, the joint class and its attributes included.

    ``routes_M`` are those of the models, ``probabilities_M`` what each says: [N, K] of each of its
    heads. Raises what ``voting.apply`` raises.
    """
    voted: dict[str, Answer] = {}
    for target, routes in voters(sorted(set(routes_M), key=_place)).items():
        chosen = [m for m, route in enumerate(routes_M) if route in routes]
        said_MNK = np.stack([for_target(probabilities_M[m], routes_M[m][1], target)
                             for m in chosen])  # fmt: skip
        places_M = [routes.index(routes_M[m]) for m in chosen]
        classes_N, _ = voting.apply(fitted[target], said_MNK, places_M)
        mean_NK = voting.mean_probabilities(fitted[target], said_MNK, places_M)
        voted[target] = Answer(classes_N, mean_NK)
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
            f"the model of task {_named((model.run, model.task))}, fold {model.fold} has not seen "
            f"the same photos as the others: {len(missing)} missing, {len(place)} seen, such as "
            f"{missing[:3]}"
        )
    order = [place[image_id] for image_id in image_ids]
    return {head: np.asarray(values)[order] for head, values in model.probabilities.items()}


def for_target(probabilities: Mapping[str, Any], task: Task, target: str) -> FloatArray:
    """Probabilities [N, K] of ``target`` by a model of ``task``, from those of its heads."""
    if task is Task.JOINT and target != "joint":
        return labels.marginal(np.asarray(probabilities["joint"], float), target)
    return np.asarray(probabilities[target], float)


def _named(route: Route) -> str:
    """``task``, or ``run/task`` where there are several runs."""
    return "/".join(filter(None, (route[0], str(route[1]))))


def names_of(routes: Iterable[Route]) -> list[str]:
    """How a reader is told of routes."""
    return list(map(_named, routes))


def disagreement(out_of_fold: pd.DataFrame, target: str) -> pd.DataFrame:
    """The share of training photos on which two routes answer ``target`` differently, [routes,
    routes], rows and columns by name. Members that never disagree add nothing to each other."""
    import pandas as pd

    routes = voters(routes_of(out_of_fold))[target]
    probabilities_MNK, _, _ = stacked(out_of_fold, target, routes)
    answers_MN = probabilities_MNK.argmax(axis=2)
    shares_MM = (answers_MN[:, None] != answers_MN[None]).mean(axis=2)
    return pd.DataFrame(shares_MM, index=names_of(routes), columns=names_of(routes))


def stacked(
    out_of_fold: pd.DataFrame, target: str, routes: Sequence[Route]
) -> tuple[FloatArray, IntArray, pd.DataFrame]:
    """Out-of-fold probabilities [routes, N, K] of ``target``, truth [N] and the photos (columns
    ``photo`` and ``person``), which all routes saw.

    Raises ValueError where they have no photo in common, or take it for another person or class.
    """
    import pandas as pd

    tables = [rows_of(out_of_fold, target, route) for route in routes]
    photos = tables[0].index
    for table in tables[1:]:
        photos = photos.intersection(table.index)
    if photos.empty:
        raise ValueError(
            f"{', '.join(names_of(routes))} answer {target} together, but have no photo in "
            "common: train them on the same folds"
        )
    first = tables[0].loc[photos]
    for route, table in zip(routes[1:], tables[1:], strict=True):
        other = table.loc[photos]
        differ = other[["truth", "person"]].to_numpy() != first[["truth", "person"]].to_numpy()
        if differ.any():
            raise ValueError(
                f"{_named(routes[0])} and {_named(route)} were trained with other labels of "
                f"{differ.any(axis=1).sum()} photos, such as {photos[differ.any(axis=1)][0]}: they "
                "need the same data and data.label_fixes"
            )
    return (
        np.stack([np.stack(table.loc[photos, "probabilities"].tolist()) for table in tables]),
        first["truth"].to_numpy(np.int64),
        pd.DataFrame({"photo": photos, "person": first["person"].to_numpy()}),
    )


def rows_of(out_of_fold: pd.DataFrame, target: str, route: Route) -> pd.DataFrame:
    """By photo: person, truth and probabilities of ``target`` that a route gives."""
    run, task = route
    head = "joint" if task is Task.JOINT else target
    chosen = (out_of_fold["task"] == task) & (out_of_fold["head"] == head)
    if "run" in out_of_fold:
        chosen &= out_of_fold["run"] == run
    rows = out_of_fold[chosen].set_index("photo").sort_index()
    truth_N = rows["truth"].to_numpy(np.int64)
    if head != target:
        truth_N = labels.decode(truth_N)[target]
    values_NK = for_target({head: np.stack(rows["probabilities"].tolist())}, task, target)
    return rows[["person"]].assign(truth=truth_N, probabilities=list(values_NK))
