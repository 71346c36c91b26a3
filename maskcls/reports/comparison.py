"""Whether one run is better than another, or luck: both on the same photos of the same people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import matplotlib
import pandas as pd

from maskcls.config import layers
from maskcls.labels import MISSING
from maskcls.reports import analysis, charts, page
from maskcls.reports.analysis import Difference
from maskcls.reports.finished_run import FinishedRun
from maskcls.reports.page import Table
from maskcls.scoring.metrics import confusion, macro_f1
from maskcls.storage import yaml_files

SECTIONS: Final = ("data", "folds", "pseudo", "ensemble")
"""Parts of a configuration, beside the recipes and the seed, that results depend on."""


@dataclass(frozen=True)
class Comparison:
    """A run against the first one.

    ``scores`` are the macro F1 of both, and ``gains`` the run's minus the first's, of each target
    that both answer, on ``photos`` photos of ``people`` people. ``relabelled`` photos, which the
    two runs have under other labels, are left out.
    """

    first: str
    second: str
    people: int
    photos: int
    relabelled: int
    scores: dict[str, tuple[float, float]]
    gains: dict[str, Difference]

    @property
    def verdict(self) -> str:
        """In words, by the joint class where both runs answer it."""
        target, gain = next(iter(self.gains.items()))
        if not gain.clear:
            return f"no clear difference between {self.second} and {self.first}: {target} {gain}"
        word = "better" if gain.value > 0 else "worse"
        return f"{self.second} is {word} than {self.first}: {target} {gain}"


def compare(first: FinishedRun, second: FinishedRun, names: Sequence[str]) -> Comparison:
    """Compare ``second`` with ``first``, out of fold; ``names`` are what to call them.

    Photos are matched by key. Raises ValueError where the two have no person, or nothing that
    both answer, in common.
    """
    targets = [target for target in first.targets if target in second.targets]
    if not targets:
        raise ValueError(
            f"{names[0]} answers {', '.join(first.targets)} and {names[1]} "
            f"{', '.join(second.targets)}: nothing to compare"
        )
    both = first.answers.merge(second.answers, on=["photo", "person"], suffixes=("_1", "_2"))
    if both.empty:
        raise ValueError(
            f"{names[0]} and {names[1]} have no person in common, so they cannot be compared: "
            "train both on the same data"
        )
    alike = pd.Series(True, index=both.index)
    for target in targets:
        alike &= both[f"{target}_truth_1"] == both[f"{target}_truth_2"]
    kept = both[alike]
    if kept.empty:
        raise ValueError(f"{names[0]} and {names[1]} have different labels for every photo")
    scores, gains = {}, {}
    for target in targets:
        labelled = kept[kept[f"{target}_truth_1"] != MISSING]
        if labelled.empty:
            continue
        truth, one, two = (
            labelled[f"{target}_{kind}"].to_numpy()
            for kind in ("truth_1", "predicted_1", "predicted_2")
        )
        classes = analysis.size(target)
        scores[target] = (
            macro_f1(confusion(truth, one, classes)),
            macro_f1(confusion(truth, two, classes)),
        )
        gains[target] = analysis.difference(
            truth, one, two, labelled["person"].to_numpy(), classes=classes, seed=first.seed
        )
    return Comparison(
        first=names[0],
        second=names[1],
        people=kept["person"].nunique(),
        photos=len(kept),
        relabelled=int((~alike).sum()),
        scores=scores,
        gains=gains,
    )


def names_of(runs: Sequence[FinishedRun]) -> list[str]:
    """What to call the runs: their folders' names, or paths where two are alike."""
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.folder) for run in runs]


def table(found: Sequence[Comparison]) -> pd.DataFrame:
    """The comparisons as a table to print, one row a target."""
    return pd.DataFrame(
        [
            {
                "run": comparison.second,
                "against": comparison.first,
                "score": target,
                "macro F1": f"{comparison.scores[target][1]:.3f}",
                "of the other": f"{comparison.scores[target][0]:.3f}",
                "difference": f"{gain.value:+.3f}",
                "95 % interval": f"{gain.low:+.3f} to {gain.high:+.3f}",
                "verdict": _word(gain),
                "people": comparison.people,
            }
            for comparison in found
            for target, gain in comparison.gains.items()
        ]
    )


def write(path: Path, runs: Sequence[FinishedRun]) -> list[Comparison]:
    """Compare each run with the first and write the page ``path``.

    Raises what ``compare`` raises, and OSError where the page cannot be written.
    """
    names = names_of(runs)
    found = [
        compare(runs[0], run, [names[0], name])
        for run, name in zip(runs[1:], names[1:], strict=True)
    ]
    with matplotlib.rc_context(page.PLOT_STYLE):
        rows = [_row_of(comparison) for comparison in found]
    page.write(
        path, "comparison.html.j2", names=names, found=rows, runs=_runs(runs, names),
        settings=_settings(runs, names),
    )  # fmt: skip
    return found


def _row_of(found: Comparison) -> dict[str, Any]:
    clear = [target for target, gain in found.gains.items() if gain.clear]
    story = f"clear difference: {', '.join(clear)}" if clear else "no clear difference"
    rows = table([found]).drop(columns=["run", "against", "people"])
    head = ["", found.second, found.first, *rows.columns[3:]]
    return {
        "comparison": found,
        "figure": page.plot(charts.differences(story, found.gains), "differences; see the table"),
        "table": Table("Macro F1 on the people in common", head, rows.to_numpy().tolist()),
    }


def _runs(runs: Sequence[FinishedRun], names: Sequence[str]) -> Table:
    rows = []
    for run, name in zip(runs, names, strict=True):
        first = run.targets[0]
        score = run.scores["out_of_fold"][first]
        recipes = dict.fromkeys(
            f"{recipe.model.name} {recipe.image.size[0]}x{recipe.image.size[1]}"
            for recipe in run.recipes.values()
        )
        rows.append(
            [
                name,
                ", ".join(run.tasks),
                ", ".join(recipes),
                f"{run.scores['people']:,}",
                f"{first} {score['macro_f1']:.3f}",
                "{:.3f} to {:.3f}".format(*score["macro_f1_interval"]),
            ]
        )
    head = ["run", "tasks", "models", "people", "macro F1 on all its people", "95 % interval"]
    return Table("Each run alone", head, rows)


def _settings(runs: Sequence[FinishedRun], names: Sequence[str]) -> Table:
    """The settings that are not the same in all runs; a task's own where a run's tasks differ."""
    of_run = [_settings_of(run) for run in runs]
    keys = dict.fromkeys(key for settings in of_run for key in settings)
    rows = [[key, *(settings.get(key, "") for settings in of_run)] for key in keys]
    different = [row for row in rows if len({str(value) for value in row[1:]}) > 1]
    return Table("Settings that differ", ["key", *names], different)


def _settings_of(run: FinishedRun) -> dict[str, Any]:
    config = yaml_files.read(run.folder / "config.yaml")
    sections = {name: config[name] for name in SECTIONS if name in config}
    found: dict[str, Any] = {"run.seed": run.seed, **dict(layers.flatten(sections))}
    of_task = {
        task: dict(layers.flatten(recipe.model_dump(mode="json")))
        for task, recipe in run.recipes.items()
    }
    for key in dict.fromkeys(key for recipe in of_task.values() for key in recipe):
        values = {task: recipe.get(key, "") for task, recipe in of_task.items()}
        if len({str(value) for value in values.values()}) == 1:
            found[key] = next(iter(values.values()))
        else:
            found |= {f"{key} (task {task})": value for task, value in values.items()}
    return found


def _word(gain: Difference) -> str:
    if not gain.clear:
        return "may be luck"
    return "better" if gain.value > 0 else "worse"
