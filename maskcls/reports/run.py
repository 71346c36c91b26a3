"""One HTML page that shows a finished sweep. It needs no other file and no network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd

from maskcls.data.manifest import OK
from maskcls.labels import HEADS
from maskcls.reports import advice, analysis, charts, finished_run, gallery, page
from maskcls.reports.analysis import Calibration
from maskcls.reports.finished_run import FinishedRun, readable
from maskcls.scoring import ensemble, metrics
from maskcls.storage import files

MISTAKES: Final = 12
"""Wrong answers that are shown, and explained."""

REASONS: Final = 3
"""Reasons that a list of what is missing tells."""

UNCERTAIN: Final = 12
"""Uncertain answers that are shown."""


def write(folder: Path, explain: gallery.Explain = gallery.explain) -> Path:
    """Write ``folder/report.html``, whole or not at all, and return its path.

    All of it comes from the files of the run, and the pictures from the photos that its manifest
    names; where those are gone the page says so. ``explain`` makes the heat maps. Raises
    FileNotFoundError where ``folder`` holds no finished run and OSError naming the page where it
    cannot be written.
    """
    run = finished_run.read(folder)
    with matplotlib.rc_context(page.PLOT_STYLE):
        sections = _sections(run, explain)
    body = [
        _header(run),
        page.navigation(list(sections)),
        "<main>",
        _missing(run.scores["failed"]),
        *(page.section(title, *content) for title, content in sections.items()),
        "</main>",
        _footer(run.scores["versions"]),
    ]
    path = folder / "report.html"
    text = page.PAGE.format(
        title=escape(run.name), css=page.CSS + gallery.CSS + CSS, body="\n".join(body)
    )
    files.write_text(path, text)
    return path


def _sections(run: FinishedRun, explain: gallery.Explain) -> dict[str, tuple[str, ...]]:
    """Title -> note and contents, in the order of the page."""
    opinions = analysis.opinions(run)
    calibrations = _calibrations(run)
    found = {
        "Result": (RESULT_NOTE, _result(run, opinions, calibrations)),
        "What was run": (RUN_NOTE, _recipes(run)),
        "Classes": (CLASSES_NOTE, *(_matrix(run, space) for space in run.spaces)),
        "Learning curves": (CURVES_NOTE, _curves(run)),
        "Calibration": (CALIBRATION_NOTE, _reliability(calibrations)),
        "Age, gender and kind of photo": (GROUPS_NOTE, *_groups(run)),
        "Worst mistakes": _mistakes(run, opinions, explain),
        "Most uncertain": _uncertain(run, opinions),
        "Agreement of the models": _agreement(run),
        "Time": (TIME_NOTE, *_times(run)),
        "Data and folds": (DATA_NOTE, *_data(run)),
    }
    return {title: content for title, content in found.items() if any(content[1:])}


def _header(run: FinishedRun) -> str:
    scores = run.scores
    backbones = dict.fromkeys(recipe.model.name for recipe in run.recipes.values())
    facts = [
        f"{', '.join(map(str, run.tasks))} with {', '.join(backbones)}",
        f"{scores['people']:,} people",
        f"{scores['photos']:,} photos",
        f"{scores['ensemble']['models']} models in a {run.ensemble} ensemble",
        f"seed {run.seed}",
    ]
    return f"<header><h1>{escape(run.name)}</h1><p>{escape(' · '.join(facts))}</p></header>"


def _missing(failed: Mapping[str, str]) -> str:
    if not failed:
        return ""
    rows = "".join(
        f"<li><b>{escape(name)}</b> {escape(reason)}</li>" for name, reason in failed.items()
    )
    return f'<section class="missing"><h2>Missing models</h2><ul>{rows}</ul></section>'


def _result(
    run: FinishedRun, opinions: pd.DataFrame, calibrations: Mapping[str, Calibration]
) -> str:
    scores = run.scores["out_of_fold"]
    singles = {space: analysis.best_single(run, space) for space in scores}
    chances = {space: analysis.chance(run.answers[f"{space}_truth"]) for space in scores}
    first, values = next(iter(scores.items()))
    figure = charts.headline(scores, {s: one.macro_f1 for s, one in singles.items()}, chances)
    low, high = values["macro_f1_interval"]
    head = (
        f'<div class="card"><h3>{first} macro F1, out of fold</h3>'
        f'<div class="big">{values["macro_f1"]:.3f}</div>'
        f"<div>{low:.3f} to {high:.3f} with other people (95&nbsp;%)</div>"
        f"{page.plot(figure, 'macro F1 beside the best single model and chance; see the table')}"
        "</div>"
    )
    rows = [
        [
            space,
            f"{values['macro_f1']:.3f}",
            "{:.3f} to {:.3f}".format(*values["macro_f1_interval"]),
            f"{singles[space].macro_f1:.3f} ({singles[space].name})",
            singles[space].gain or "same answers",
            f"{chances[space]:.3f}",
            *(f"{values[n]:.3f}" for n in ("accuracy", "macro_precision", "macro_recall")),
        ]
        for space, values in scores.items()
    ]
    columns = ["", "macro F1", "95 % interval", "best single", "ensemble over it", "chance"]
    table = page.table(
        "Scores out of fold", [*columns, "accuracy", "macro precision", "macro recall"], rows
    )
    alone = all(single.gain is None for single in singles.values())
    note = SINGLE_NOTE if alone else PICKED_NOTE
    steps = "".join(
        f"<li>{step}</li>" for step in advice.next_steps(run, opinions, calibrations, singles)
    )
    following = f'<div class="card next"><h3>What to do next</h3><ol>{steps}</ol></div>'
    return f'<div class="first">{head}{following}</div>{table}<p>{note}</p>'


def _recipes(run: FinishedRun) -> str:
    rows: dict[str, list[str]] = {}
    for recipe in run.recipes.values():
        told = {
            "backbone": recipe.model.name,
            "weights": recipe.model.weights or ("hub" if recipe.model.pretrained else "random"),
            "input (H x W)": f"{recipe.image.size[0]} x {recipe.image.size[1]}",
            "preprocessing": f"crop {recipe.image.crop}, background {recipe.image.background}",
            "augmentation": f"{recipe.augment.name}, mix {recipe.augment.mix.name}",
            "loss": recipe.loss.name,
            "optimiser": f"{recipe.optimizer.name}, lr {recipe.train.lr:g}",
            "schedule": recipe.schedule.name,
            "sampler": recipe.sampler.name,
            "ages left out": ", ".join(f"{a}-{b}" for a, b in recipe.people.drop_ages) or "none",
            "blended groups": str(len(recipe.people.blend)),
            "epochs, batch": f"{recipe.train.epochs}, {recipe.train.batch_size}",
        }
        for name, value in told.items():
            rows.setdefault(name, []).append(value)
    folds = [str(sum(job["task"] == task for job in run.scores["jobs"])) for task in run.tasks]
    rows = {"fold models": folds} | rows
    return page.table(
        "Recipe of each task",
        ["", *map(str, run.tasks)],
        [[name, *values] for name, values in rows.items()],
    )


def _matrix(run: FinishedRun, space: str) -> str:
    """The confusion matrix with the scores of each class at the end of its row."""
    names = readable(space)
    truth, predicted = (run.answers[f"{space}_{kind}"] for kind in ("truth", "predicted"))
    cm_KK = metrics.confusion(truth, predicted, len(names))
    support_K, answered_K = cm_KK.sum(axis=1), cm_KK.sum(axis=0)
    share_KK = cm_KK / np.maximum(support_K, 1)[:, None]
    scores_K3 = np.stack(metrics.per_class(cm_KK), axis=1)
    rows = []
    for k, name in enumerate(names):
        cells = "".join(
            _cell(int(cm_KK[k, j]), float(share_KK[k, j]), f"{name}, answered {names[j]}", j == k)
            for j in range(len(names))
        )
        # A class that nobody has and nobody answered has no scores, and macro means skip it.
        seen = support_K[k] + answered_K[k] > 0
        ends = [f"{value:.2f}" if seen else "–" for value in scores_K3[k]] + [f"{support_K[k]:,}"]
        rows.append(
            f'<th scope="row"><span>{k}</span> {name}</th>{cells}<td class="gap"></td>'
            + "".join(f"<td>{value}</td>" for value in ends)
        )
    columns = "".join(f'<th scope="col" title="{n}">{k}</th>' for k, n in enumerate(names))
    measures = ("prec.", "recall", "F1", "photos")
    head = f'<th scope="col">{space}</th>{columns}<td class="gap"></td>' + "".join(
        f'<th scope="col">{name}</th>' for name in measures
    )
    caption = f"{space}: {_confusion_story(cm_KK, names)}"
    inner = page.table_caption(caption) + page.table_rows(head, rows)
    return page.scrolling(f"{space} confusion matrix", f'<table class="matrix">{inner}</table>')


def _confusion_story(cm_KK: npt.NDArray[np.int64], names: Sequence[str]) -> str:
    wrong_KK = cm_KK - np.diag(np.diag(cm_KK))
    if not wrong_KK.any():
        return "no photo is wrong"
    truth, answer = divmod(int(wrong_KK.argmax()), len(names))
    share = wrong_KK[truth, answer] / wrong_KK.sum()
    return (
        f"the most frequent confusion takes {names[truth]} for {names[answer]} "
        f"({wrong_KK[truth, answer]:,} photos, {share:.0%} of all wrong)"
    )


def _cell(count: int, share: float, meaning: str, right: bool) -> str:
    if not count:
        return "<td></td>"
    colour = "0,114,178" if right else "213,94,0"
    ink = ";color:#fff" if share > 0.5 else ""
    return (
        f'<td style="background:rgba({colour},{0.08 + 0.8 * share:.2f}){ink}" '
        f'title="{meaning}: {share:.1%}">{count}</td>'
    )


def _curves(run: FinishedRun) -> str:
    best = {(job["task"], job["fold"]): job["best_epoch"] for job in run.scores["jobs"]}
    plots = []
    for task in run.tasks:
        mine = {fold: h for (owner, fold), h in run.histories.items() if owner is task}
        if mine:
            epochs = {fold: best[task, fold] for fold in mine}
            names = (f"{task}: macro F1 by epoch and fold", f"{task}: losses by epoch and fold")
            plots += list(map(page.plot, charts.learning(task, mine, epochs), names))
    return _plots(plots)


def _plots(plots: Sequence[str]) -> str:
    return f'<div class="plots">{"".join(plots)}</div>' if plots else ""


def _calibrations(run: FinishedRun) -> dict[str, Calibration]:
    """The calibration of each head, named by its task and, where that has several, itself."""
    rows_of = dict(iter(run.out_of_fold.groupby(["task", "head"])))
    return {
        str(task) if len(HEADS[task]) == 1 else f"{task} {head}": analysis.calibration(
            rows_of[str(task), head]
        )
        for task in run.tasks
        for head in HEADS[task]
    }


def _reliability(calibrations: Mapping[str, Calibration]) -> str:
    return _plots(
        [
            page.plot(charts.reliability(name, c), f"{name}: share right by probability given")
            for name, c in calibrations.items()
        ]
    )


def _groups(run: FinishedRun) -> list[str]:
    photos = run.photos.loc[run.answers["photo"]]
    gender = [readable("gender")[g] for g in photos["gender"]]
    kind = photos["stem"].str.replace("_", " ").to_numpy()
    table = pd.concat([analysis.by_group(run, groups).sort_index() for groups in (gender, kind)])
    plots, tables = [], []
    if "age" in run.spaces:
        years = analysis.by_year(run)
        names = ("share of right age answers by year", "bands that are named by year of age")
        plots += list(map(page.plot, charts.years(years), names))
        tables.append(_border(years))
    alt = "share of right answers by gender and kind of photo; see the table"
    plots.append(page.plot(charts.groups(table, run.spaces[0]), alt))
    rows = [
        [name, f"{row['people']:,.0f}", f"{row['photos']:,.0f}"]
        + [f"{row[space]:.1%}" for space in run.spaces]
        for name, row in table.iterrows()
    ]
    head = ["", "people", "photos", *(f"{space} right" for space in run.spaces)]
    tables.append(page.table("Right answers by gender and kind of photo", head, rows))
    return [_plots(plots), *tables]


def _border(years: pd.DataFrame) -> str:
    rows = [
        [f"{age} years", f"{row['people']:.0f}", f"{row['right']:.0%}"]
        + [f"{row[band]:.0%}" for band in range(3)]
        for age, row in years.iterrows()
        if age in analysis.BORDER_AGES
    ]
    head = ["age", "people", "right", *(f"named {name}" for name in readable("age"))]
    return page.table("Where the ages beside the limits fall", head, rows) if rows else ""


def _mistakes(
    run: FinishedRun, opinions: pd.DataFrame, explain: gallery.Explain
) -> tuple[str, ...]:
    chosen = analysis.worst(opinions, MISTAKES)
    if chosen.empty:
        return (MISTAKES_NOTE, "<p>No photo is answered wrongly.</p>")
    photos, problems = gallery.read_photos(run, chosen["photo"].tolist())
    explained = explain(run, chosen, photos)
    return (
        MISTAKES_NOTE,
        _told("These photos cannot be shown", problems),
        _told("Not every answer has a heat map", explained.notes),
        gallery.cards(run, chosen, photos, explained.pictures),
    )


def _uncertain(run: FinishedRun, opinions: pd.DataFrame) -> tuple[str, ...]:
    chosen = analysis.most_uncertain(opinions, UNCERTAIN)
    photos, problems = gallery.read_photos(run, chosen["photo"].tolist())
    told = _told("These photos cannot be shown", problems)
    return (UNCERTAIN_NOTE, told, gallery.cards(run, chosen, photos, {}))


def _told(what: str, reasons: Sequence[str]) -> str:
    if not reasons:
        return ""
    more = [f"and {len(reasons) - REASONS} more"] if len(reasons) > REASONS else []
    rows = "".join(f"<li>{escape(reason)}</li>" for reason in [*reasons[:REASONS], *more])
    return f'<div class="told"><b>{what}:</b><ul>{rows}</ul></div>'


def _agreement(run: FinishedRun) -> tuple[str, ...]:
    contents = []
    if run.votes:
        fitted = ensemble.from_json(files.read_json(run.folder / "ensemble.json"))
        plots, rows = [], []
        for space in fitted:
            found = analysis.agreement(run.votes, fitted, space)
            if found is None:
                continue
            alt = f"{space}: share of photos that each pair of models answers alike"
            plots.append(page.plot(charts.alike(space, found), alt))
            rows += [[name, space, f"{share:.1%}"] for name, share in found.changed.items()]
        head = ["model left out", "vote on", "answers that change"]
        contents = [_plots(plots)]
        if rows:
            contents.append(page.table("How much each model moves the vote", head, rows))
    else:
        contents = ["<p>There are no votes on photos to predict in this run.</p>"]
    without = analysis.without_each(run)
    if without:
        gains = {f"{task} models": gain for task, gain in without.items()}
        clear = [name for name, gain in gains.items() if gain.clear]
        story = f"clear of 0: {', '.join(clear)}" if clear else "none is clear of 0"
        figure = charts.differences(f"joint macro F1 that each adds; {story}", gains)
        contents.append(page.plot(figure, "joint macro F1 that the models of each task add"))
    else:
        contents.append(f"<p>{ONE_WAY_NOTE}</p>")
    return (AGREEMENT_NOTE, *contents)


def _times(run: FinishedRun) -> list[str]:
    jobs = run.scores["jobs"]
    phases = [
        [name, page.duration(seconds), f"{seconds / max(run.scores['seconds'], 1e-9):.0%}"]
        for name, seconds in run.scores.get("phases", {}).items()
    ]
    head = ["phase", "time", "share"]
    table = page.table("Phases of the last sweep command", head, phases) if phases else ""
    figure = page.plot(charts.times(jobs), "minutes of each job; see the table")
    return [figure, table, _jobs(jobs)]


def _jobs(jobs: Iterable[Mapping[str, Any]]) -> str:
    rows = [
        [
            job["task"],
            job["fold"],
            f"{job['best_epoch']} of {job['epochs']}",
            *(f"{job['scores'][name]:.3f}" for name in ("macro_f1", "accuracy", "loss")),
            page.duration(job["training_seconds"]),
            page.duration(job["seconds"]),
        ]
        for job in jobs
    ]
    head = ["task", "fold", "best epoch", "macro F1", "accuracy", "loss", "training", "whole job"]
    return page.table("Jobs: scores of the kept epoch on the people of the fold", head, rows)


def _data(run: FinishedRun) -> list[str]:
    photos = run.photos
    balance = analysis.fold_balance(photos)
    folds = [f"fold {fold}" if fold != "all" else "all" for fold in balance.columns]
    people = page.table(
        f"People in each fold: {_balance_story(balance)}",
        ["", *folds],
        [[name, *(f"{n:,}" for n in row)] for name, row in balance.iterrows()],
    )
    status = photos["status"].value_counts()
    fixes = photos.loc[photos["fix"] != "", "person"].nunique()
    facts = {
        "people": f"{photos['person'].nunique():,}",
        "photos": f"{len(photos):,}",
        "photos that cannot be used": f"{len(photos) - int(status.get(OK, 0)):,}",
        "people whose labels were fixed": f"{fixes:,}",
        **{
            f"photos, mask {name}": f"{(photos['mask'] == k).sum():,}"
            for k, name in enumerate(readable("mask"))
        },
    }
    return [people, f'<div class="card counts"><h3>Counts</h3>{page.facts(facts)}</div>']


def _balance_story(balance: pd.DataFrame) -> str:
    gap = balance.drop(columns="all").pipe(lambda table: table.max(axis=1) - table.min(axis=1))
    return f"no group differs by more than {gap.max()} between folds"


def _footer(versions: Mapping[str, str]) -> str:
    return f"<footer>{escape(' · '.join(f'{n} {v}' for n, v in sorted(versions.items())))}</footer>"


RESULT_NOTE: Final = (
    "Every photo is answered by models that never saw its person; beside macro F1 stands its "
    "95&nbsp;% interval over resampled people. Best single: the best of those models alone, all "
    "folds pooled (fold models cannot be compared: each was scored on other people). Chance: "
    "answers drawn as often as each class occurs, 1 / classes. "
    "<i>From scores.json and out_of_fold.parquet.</i>"
)
SINGLE_NOTE: Final = (
    "Out of fold each photo has one model a task, so the ensemble's answers are those of the "
    "single models. What the vote of several folds adds shows on new photos only."
)
PICKED_NOTE: Final = (
    "The best single model is picked on the photos that score it, so it looks a little better than "
    "it is. What the vote of several folds adds shows on new photos only."
)
RUN_NOTE: Final = "<i>From jobs/*/checkpoint.json; every key is in config.yaml.</i>"
CLASSES_NOTE: Final = (
    "Rows are the truth, columns the answers; the colour shows the share of the row, blue right "
    "and orange wrong. <i>From out_of_fold.parquet.</i>"
)
CURVES_NOTE: Final = (
    "One line a fold; the mark is the epoch whose weights were kept. The training loss is that of "
    "the recipe, on augmented photos; the validation loss is the negative log-likelihood. "
    "<i>From jobs/*/metrics.jsonl.</i>"
)
CALIBRATION_NOTE: Final = (
    "Of the answers to which a model gave 80&nbsp;%, 80&nbsp;% should be right. The calibration "
    "error is the mean gap over ten bins, weighted by photos. <i>From out_of_fold.parquet.</i>"
)
GROUPS_NOTE: Final = (
    "Shares of photos whose answer is right. <i>From out_of_fold.parquet and manifest.parquet.</i>"
)
MISTAKES_NOTE: Final = (
    "The surest wrong answers, one a person and attribute. The second picture shows what spoke for "
    "the wrong answer (Grad-CAM): yellow most, blue nothing. Age in years as labelled. "
    "<i>From out_of_fold.parquet and jobs/*/model.safetensors.</i>"
)
UNCERTAIN_NOTE: Final = (
    "The answers with the most even probabilities, right or wrong: worth a look at the photo and "
    "its label. <i>From out_of_fold.parquet.</i>"
)
AGREEMENT_NOTE: Final = (
    "A photo to train on is answered by one fold model a task, so the fold models of a task meet "
    "only on the photos to predict, whose truth is not known: alike does not mean right. "
    "<i>From votes/ and out_of_fold.parquet.</i>"
)
ONE_WAY_NOTE: Final = (
    "What each task's models add to the score cannot be told: none can be left out without losing "
    "an attribute. <code>ray_jobs.compare</code> trains joint and multi-head models beside them."
)
TIME_NOTE: Final = "Times in h:mm:ss. <i>From scores.json and jobs/*/job.json.</i>"
DATA_NOTE: Final = "<i>From manifest.parquet.</i>"

CSS: Final = """
.first { display: grid; grid-template-columns: minmax(0, 2fr) minmax(0, 3fr); gap: 12px;
         width: 100%; }
.first img { border: 0; }
.next ol { margin: 6px 0 0; padding-left: 20px; }
.next li { margin: 6px 0; }
.counts { flex: 0 1 320px; }
.told { width: 100%; background: #fff7ed; border-left: 4px solid #d55e00; padding: 8px 12px;
        box-sizing: border-box; }
.told ul { margin: 0; padding-left: 18px; }
@media screen and (max-width: 800px) { .first { grid-template-columns: minmax(0, 1fr); } }
"""
