"""How the models of a run vote: their weights, decision offsets, and how far they agree."""

from __future__ import annotations

from typing import Any

from maskcls.labels import AgeLimits
from maskcls.reports import analysis, charts, page
from maskcls.reports.analysis import Difference
from maskcls.reports.finished_run import FinishedRun, readable
from maskcls.reports.page import Table
from maskcls.scoring import ensemble
from maskcls.scoring.voting import FittedVote
from maskcls.storage import files


def tables(run: FinishedRun) -> list[Table]:
    """Weights, where several tasks tell the same; offsets, where they were tried; and the share of
    training photos that two tasks answer differently."""
    fitted = ensemble.from_json(run.scores["ensemble"]["fitted"])
    routes = ensemble.voters(ensemble.routes_of(run.out_of_fold))
    found = [*_weights(fitted, routes), *_offsets(fitted, run.age_limits)]
    for target, voters in routes.items():
        if len(voters) > 1:
            shares = ensemble.disagreement(run.out_of_fold, target)
            rows = [[name, *(f"{s:.0%}" for s in row)] for name, row in shares.iterrows()]
            caption = f"{target}: share of photos that two tasks answer differently, out of fold"
            found.append(Table(caption, ["", *shares.columns], rows))
    return found


def _weights(fitted: dict[str, FittedVote], routes: dict[str, list[ensemble.Route]]) -> list[Table]:
    rows = [
        [target, name, f"{weight:.2f}"]
        for target, vote in fitted.items()
        for name, weight in zip(
            ensemble.names_of(routes[target]), vote.parameters.get("weights", []), strict=False
        )
        if len(routes[target]) > 1
    ]
    if not rows:
        return []
    return [Table("Weight of each task in the vote", ["", "models of task", "weight"], rows)]


def _offsets(fitted: dict[str, FittedVote], age_limits: AgeLimits) -> list[Table]:
    rows: list[list[str]] = []
    for target, vote in fitted.items():
        if vote.offsets is not None:
            tried = vote.offsets
            values = zip(readable(target, age_limits), tried["values"], strict=True)
            rows.append(
                [
                    target,
                    "used" if tried["used"] else "not used",
                    str(Difference(tried["gain"], tried["low"], tried["high"])),
                    ", ".join(f"{name} {value:+.2f}" for name, value in values),
                ]
            )
    caption = (
        "Decision offsets: added to the log-probability of a class, for macro F1. The gain is that "
        "on people who had no part in fitting them; they are used where its interval is above 0"
    )
    return [Table(caption, ["", "", "gain", "offsets"], rows)] if rows else []


def agreement(run: FinishedRun) -> dict[str, Any]:
    """How far models agree on the photos to predict, and what each task's models add."""
    plots, rows = [], []
    if run.votes:
        fitted = ensemble.from_json(files.read_json(run.folder / "ensemble.json"))
        for target in fitted:
            found = analysis.agreement(run.votes, fitted, target)
            if found is not None:
                alt = f"{target}: share of photos to which two models give the same answer"
                plots.append(page.plot(charts.agreement(target, found), alt))
                rows += [[name, target, f"{share:.1%}"] for name, share in found.changed.items()]
    without = {f"{task} models": gain for task, gain in analysis.without_each(run).items()}
    gains = None
    if without:
        clear = [name for name, gain in without.items() if gain.clear]
        story = f"clear difference: {', '.join(clear)}" if clear else "no clear difference"
        figure = charts.differences(f"joint macro F1 added by each; {story}", without)
        gains = page.plot(figure, "joint macro F1 that the models of each task add")
    head = ["model left out", "vote on", "answers that change"]
    table = Table("How much each model changes the vote", head, rows) if rows else None
    return {
        "voted": bool(run.votes),
        "plots": plots,
        "table": table,
        "gains": gains,
        "needs_all": len(run.tasks) > 1,
    }
