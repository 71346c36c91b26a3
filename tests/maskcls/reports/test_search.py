import base64
import logging
import re
import time
import warnings
from xml.etree import ElementTree

import numpy as np
import optuna
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskcls.reports import page, search
from maskcls.reports.search import importances
from tests.conftest import faults_of

RUNGS = (1, 3, 9)


def make_scored(trials=40):
    """Trials whose score goes by the decade of the learning rate, and a little by the loss."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "train.lr": 10 ** rng.uniform(-5, -1, trials),
            "loss.name": rng.choice(["cross_entropy", "focal"], trials),
            "image.size": [[[256, 192], [384, 288]][i] for i in rng.integers(2, size=trials)],
            "optimizer.amsgrad": rng.choice([True, False], trials),
            "train.epochs": rng.integers(2, 10, trials),
        }
    )
    bonus = 0.05 * (table["loss.name"] == "focal")
    return table.assign(score=0.8 - 0.1 * (np.log10(table["train.lr"]) + 2) ** 2 + bonus)


ALL_KEYS = [key for key in make_scored(1) if key != "score"]


def test_importance_goes_to_what_moves_the_score():
    found = importances(make_scored(), ALL_KEYS)
    assert next(iter(found)) == "train.lr"
    assert found["train.lr"] > 0.7
    assert set(found) == set(ALL_KEYS)
    assert sum(found.values()) == pytest.approx(1)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert all(type(share) is float for share in found.values())


@pytest.mark.parametrize("key", ["image.size", "optimizer.amsgrad", "loss.name"])
def test_lists_switches_and_names_can_matter(key):
    table = make_scored()
    table["score"] = (table[key].map(str) == str(table[key][0])) + 0.001 * table["train.epochs"]
    found = importances(table, ALL_KEYS)
    assert next(iter(found)) == key
    assert found[key] > 0.8


def test_a_wide_key_counts_by_its_decades():
    table = make_scored()
    low = table["train.lr"] < 1e-3
    table["score"] = low.astype(float) + 0.1 * table["train.epochs"]
    assert importances(table, ["train.lr", "train.epochs"])["train.lr"] > 0.6


def test_keys_that_a_scored_trial_lacks_are_left_out():
    table = make_scored().assign(**{"loss.gamma": 2.0 + np.arange(40)})
    table.loc[5, "loss.gamma"] = np.nan
    table.loc[6, "image.size"] = None
    assert set(importances(table, [*ALL_KEYS, "loss.gamma"])) == {*ALL_KEYS} - {"image.size"}
    table.loc[5, "score"] = np.nan  # who has no score is not asked
    assert "loss.gamma" in importances(table, [*ALL_KEYS, "loss.gamma"])


def test_keys_that_never_changed_are_left_out():
    table = make_scored().assign(**{"image.size": [[256, 192]] * 40, "train.epochs": 3})
    assert set(importances(table, ALL_KEYS)) == {"train.lr", "loss.name", "optimizer.amsgrad"}


def test_importance_needs_scores_that_differ():
    assert importances(make_scored(4), ALL_KEYS)
    assert importances(make_scored(3), ALL_KEYS) == {}
    assert importances(make_scored().assign(score=0.5), ALL_KEYS) == {}
    assert importances(make_scored(5).assign(score=[0.1, 0.2, 0.3, None, None]), ALL_KEYS) == {}
    assert importances(make_scored().assign(score=None), ALL_KEYS) == {}
    hardly = make_scored().assign(score=0.0)
    hardly.loc[3, "score"] = 1e-170
    assert importances(hardly, ALL_KEYS) == {}
    assert importances(make_scored(), []) == {}


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(
            st.floats(0, 1) | st.none(),
            st.floats(-1e6, 1e6) | st.none(),
            st.sampled_from(["a", 1, 2.5, True, [1, 2], None]),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_importance_is_a_distribution_over_some_keys(rows):
    found = importances(pd.DataFrame(rows, columns=["score", "x", "y"]), ["x", "y"])
    assert set(found) <= {"x", "y"}
    assert not found or sum(found.values()) == pytest.approx(1)
    assert all(share >= 0 for share in found.values())


def test_importance_is_repeatable_and_quiet(caplog, capfd):
    caplog.set_level(logging.DEBUG)
    optuna.logging.set_verbosity(optuna.logging.INFO)
    optuna.logging.enable_propagation()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, second = (importances(make_scored(), ALL_KEYS) for _ in range(2))
    optuna.logging.disable_propagation()
    assert first == second
    assert optuna.logging.get_verbosity() == optuna.logging.INFO
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def make_trial(name, scores, state="finished", reason="", **drawn):
    best = int(np.argmax(scores)) if scores else None
    row = {
        "trial": name,
        "state": state,
        "reason": reason,
        "epochs": len(scores),
        "best_epoch": None if best is None else best + 1,
        "score": None if best is None or state == "failed" else scores[best],
        "seconds": 100.4 * len(scores),
        "train.lr": 1e-3,
        "loss.name": "focal",
        "loss.gamma": None,
        "image.size": [256, 192],
    }
    epochs = pd.DataFrame({"epoch": range(1, len(scores) + 1), "score": scores}, dtype=float)
    return row | {key.replace("__", "."): value for key, value in drawn.items()}, epochs


KEYS = ["train.lr", "loss.name", "loss.gamma", "image.size"]
SCORES = [0.875, 0.74, 0.66, 0.65, 0.4]
TRIALS = [
    make_trial("t0", [0.5, 0.6, 0.7, 0.7, 0.71, 0.72, 0.74, 0.7, 0.7], train__lr=1e-4),
    make_trial("t1", [0.4], "stopped", "not among the best at epoch 1", image__size=[384, 288]),
    make_trial("t2", [0.6, 0.7, 0.8, 0.7, 0.8, 0.8, 0.8, 0.875, 0.8], loss__gamma=2.0),
    make_trial("t3", [0.1], "failed", "loss <nan> & worse", train__lr=0.1),
    make_trial("t4", [0.5, 0.6, 0.65], "stopped", "not among the best at epoch 3", train__lr=0.02),
    make_trial("t5", [0.62, 0.66], "running", loss__name="cross_entropy", train__lr=1e-5),
    make_trial("t6", [], "running"),
]


def write(folder, trials=TRIALS, **changes):
    arguments = {
        "task": "age",
        "trials": pd.DataFrame([row for row, _ in trials]),
        "keys": KEYS,
        "histories": {row["trial"]: epochs for row, epochs in trials},
        "rungs": RUNGS,
        "nested_selection_score": 0.812,
    }
    return search.write(folder, **arguments | changes).read_text(encoding="utf-8")


def parsed(page):
    """The page as a tree, which raises where a tag is not closed."""
    assert page.startswith("<!doctype html>")
    closed = re.sub(r"<((?:meta|img|wbr)\b[^>]*)>", r"<\1/>", page.partition("\n")[2])
    return ElementTree.fromstring(closed)


def texts(element, tag):
    return ["".join(cell.itertext()) for cell in element.iter(tag)]


def cards(page):
    """Title of a card -> its lines and its facts."""
    found = {}
    for card in parsed(page).iter("div"):
        if card.get("class") == "card":
            facts = dict(zip(texts(card, "dt"), texts(card, "dd"), strict=True))
            found[card.findtext("h3")] = (texts(card, "div")[1:], facts)
    return found


@pytest.fixture
def figures(monkeypatch):
    """The figures of the pages that a test writes, by what they mean."""
    drawn, plot = {}, page.plot

    def keep(figure, meaning):
        drawn[meaning] = figure
        return plot(figure, meaning)

    monkeypatch.setattr(page, "plot", keep)
    return drawn


def test_the_page_stands_alone_and_is_well_formed(tmp_path):
    page = write(tmp_path)
    images = [image.get("src") for image in parsed(page).iter("img")]
    assert len(images) == 2
    assert all(image.startswith("data:image/svg+xml;base64,") for image in images)
    assert "<svg" in base64.b64decode(images[0].partition(",")[2]).decode()
    assert "http" not in page
    assert "url(" not in page
    assert [path.name for path in tmp_path.iterdir()] == ["search.html"]
    assert texts(parsed(page), "h2") == [
        "Result",
        "Learning curves",
        "Importance",
        "Searched keys",
        "Trials",
    ]


@pytest.mark.parametrize("width", [390, 1400])
def test_a_browser_shows_it_offline_without_a_fault(browser, tmp_path, width):
    write(tmp_path)
    assert faults_of(browser, tmp_path / "search.html", width) == []


def test_the_headline_counts_the_trials_by_their_end(tmp_path, without_plots):
    (line,) = texts(parsed(write(tmp_path)).find("body/header"), "p")
    assert line == "task age · 7 trials · 2 finished · 2 stopped · 1 failed · 2 running"


def test_the_best_trial_stands_beside_the_first_guess(tmp_path, without_plots):
    shown = cards(write(tmp_path))
    assert shown["best trial"] == (
        ["0.875", "trial t2, epoch 8 of 9"],
        {
            "nested cross-validation": "0.812",
            "train.lr": "0.001",
            "loss.name": "focal",
            "loss.gamma": "2",
            "image.size": "256, 192",
        },
    )
    _, facts = cards(write(tmp_path, nested_selection_score=None))["best trial"]
    assert next(iter(facts)) == "train.lr"
    lines, facts = shown["first guess"]
    assert lines == ["0.740", "trial t0, epoch 7 of 9"]
    assert "loss.gamma" not in facts


def test_epochs_are_compared_with_all_trials_in_full(tmp_path):
    lines, facts = cards(write(tmp_path))["epochs"]
    assert lines == ["25", "of 63 if all trials had run in full"]
    assert facts == {
        "share": "40%",
        "stopped early at epochs": "1, 3, 9",
        "time of all trials": "0:41:50",
    }


def test_in_full_means_the_last_rung_where_no_trial_got_there(tmp_path):
    page = write(tmp_path, [make_trial("a", [0.5, 0.6]), make_trial("b", [0.5], "stopped")])
    assert cards(page)["epochs"][0] == ["3", "of 18 if all trials had run in full"]


@pytest.mark.parametrize(
    ("epochs", "full"), [([9, 3, 9, 3, 3, 3, 3], 33), ([9, None, 9, 3, 3, 3, 3], 39)]
)
def test_searched_epochs_are_what_a_trial_takes_in_full(tmp_path, epochs, full):
    trials = [
        (row | {"train.epochs": drawn}, history)
        for (row, history), drawn in zip(TRIALS, epochs, strict=True)
    ]
    page = write(tmp_path, trials, keys=[*KEYS, "train.epochs"])
    assert cards(page)["epochs"][0][1] == f"of {full} if all trials had run in full"


def test_curves_show_who_was_stopped_where_and_who_is_best(tmp_path, figures):
    write(tmp_path)
    (axes,) = figures["learning curves"].axes
    lines = {}
    for line in axes.lines:
        lines.setdefault(line.get_label(), []).append(line)
    rungs = [line for line in axes.lines if line.get_linestyle() == ":"]
    assert [list(line.get_xdata()) for line in rungs] == [[r, r] for r in RUNGS]
    (best,), (first,) = lines["t2 (best)"], lines["t0"]
    assert best.get_linewidth() >= 2 * first.get_linewidth()
    np.testing.assert_allclose(best.get_ydata(), TRIALS[2][1]["score"])
    assert [len(line.get_xdata()) for line in lines["stopped"]] == [3, 1]
    for line in [*lines["stopped"], *lines["failed"]]:
        assert line.get_marker() == "x"
        assert line.get_markevery() == [-1]
    assert {line.get_color() for line in lines["stopped"]} == {"#9ca3af"}
    colours = {best.get_color(), first.get_color(), lines["running"][0].get_color()}
    assert len(colours - {"#9ca3af"}) == 3
    named = [text.get_text() for text in axes.get_legend().get_texts()]
    assert named == ["t2 (best)", "t0", "running", "stopped", "failed"]


def test_the_best_may_have_been_stopped(tmp_path, figures):
    write(tmp_path, [make_trial("a", [0.1, 0.2]), make_trial("b", [0.9], "stopped")])
    best = figures["learning curves"].axes[0].get_legend_handles_labels()
    assert best[1] == ["b (best)", "a"]
    assert best[0][0].get_marker() == "x"


def test_of_many_finished_trials_the_best_have_names(tmp_path, figures):
    write(tmp_path, [make_trial(f"t{i}", [0.1, i / 30]) for i in range(30)])
    legend = figures["learning curves"].axes[0].get_legend()
    named = [text.get_text() for text in legend.get_texts()]
    assert named == ["t29 (best)", *(f"t{i}" for i in range(28, 22, -1)), "finished"]


def test_bars_are_the_importances(tmp_path):
    scored = make_scored(12)
    trials = [
        make_trial(f"t{i}", [drawn["score"]], **drawn)
        for i, drawn in enumerate(scored.to_dict("records"))
    ]
    page = write(tmp_path, trials, keys=ALL_KEYS)
    (table,) = [t for t in parsed(page).iter("table") if t.get("class") == "bars"]
    expected = importances(scored, ALL_KEYS)
    assert texts(table, "th") == list(expected)
    assert texts(table, "td")[1::2] == [f"{share:.2f}" for share in expected.values()]
    widths = [bar.get("style") for bar in table.iter("div")]
    assert widths == [f"width:{share:.1%}" for share in expected.values()]


def test_each_key_has_a_plot_with_a_fitting_axis(tmp_path, figures):
    write(tmp_path)
    panels = {p.get_title("left"): p for p in figures["score of each value"].axes}
    assert [key for key in panels if key] == KEYS
    assert {key: panels[key].get_xscale() for key in KEYS} == {
        "train.lr": "log",
        "loss.name": "linear",
        "loss.gamma": "linear",
        "image.size": "linear",
    }
    ticks = [text.get_text() for text in panels["image.size"].get_xticklabels()]
    assert ticks == ["256, 192", "384, 288"]
    dots = {key: panels[key].collections[0].get_offsets() for key in KEYS}
    assert {key: len(places) for key, places in dots.items()} == {
        "train.lr": 5,
        "loss.name": 5,
        "loss.gamma": 1,
        "image.size": 5,
    }
    by_rank = [0.001, 1e-4, 1e-5, 0.02, 0.001]
    np.testing.assert_allclose(dots["train.lr"], [*zip(by_rank, SCORES, strict=True)])
    np.testing.assert_array_equal(dots["image.size"][:, 0].round(), [0, 0, 0, 0, 1])
    for key in KEYS:
        np.testing.assert_allclose(panels[key].lines[0].get_ydata(), [0.875])


def test_switches_are_a_strip(tmp_path, figures):
    trials = [make_trial("a", [0.5], on=True), make_trial("b", [0.6], on=False)]
    write(tmp_path, trials, keys=["on"])
    ticks = figures["score of each value"].axes[0].get_xticklabels()
    assert [tick.get_text() for tick in ticks] == ["False", "True"]


@pytest.mark.parametrize(
    ("values", "scale"),
    [([1e-4, 1e-2, 1e-3], "linear"), ([1e-4, 1.1e-2, 1e-3], "log"), ([0, 1, 1000], "linear")],
)
def test_two_decades_make_a_logarithmic_axis(tmp_path, figures, values, scale):
    trials = [make_trial(f"t{i}", [0.5], train__lr=value) for i, value in enumerate(values)]
    write(tmp_path, trials, keys=["train.lr"])
    assert figures["score of each value"].axes[0].get_xscale() == scale


def test_the_best_that_did_not_draw_a_key_has_no_ring_there(tmp_path, figures):
    trials = [make_trial("a", [0.9]), make_trial("b", [0.5], loss__gamma=1.0)]
    write(tmp_path, trials, keys=["loss.gamma"])
    assert not figures["score of each value"].axes[0].lines[0].get_xdata().size


def test_the_table_ranks_all_trials_with_their_reasons(tmp_path, without_plots):
    (table,) = [t for t in parsed(write(tmp_path)).iter("table") if t.get("class") == "trials"]
    head, *rows = [texts(row, "th") + texts(row, "td") for row in table.iter("tr")]
    assert head == ["trial", "score", "best epoch", "time", *KEYS, "state", "reason"]
    assert [row[0] for row in rows] == ["t2", "t0", "t5", "t4", "t1", "t3", "t6"]
    assert [row[1] for row in rows] == [f"{score:.3f}" for score in SCORES] + ["–", "–"]
    stopped, failed, waiting = rows[4:]
    assert stopped[2:] == [
        "1 of 1", "0:01:40", "0.001", "focal", "–", "384, 288",
        "stopped", "not among the best at epoch 1",
    ]  # fmt: skip
    assert failed[-2:] == ["failed", "loss <nan> & worse"]
    assert waiting[1:4] == ["–", "–", "0:00:00"]


def test_the_earlier_of_equal_trials_is_the_best(tmp_path):
    page = write(tmp_path, [make_trial(f"t{i}", [0.5 if i else 0.4]) for i in range(40)])
    (table,) = [t for t in parsed(page).iter("table") if t.get("class") == "trials"]
    assert texts(table.find("tbody"), "th") == [f"t{i}" for i in [*range(1, 40), 0]]


def test_what_users_name_is_escaped(tmp_path):
    folder = tmp_path / "a<b>&c"
    page = write(folder, [make_trial("<t>", [0.5], loss__name="<x>&", train__lr="<lr>")])
    assert parsed(page).findtext("head/title") == "a<b>&c"
    assert not {"b", "t", "x", "lr"} & {element.tag for element in parsed(page).iter()}


def test_without_any_score_the_page_tells_of_the_trials(tmp_path, figures):
    page = write(tmp_path, [make_trial("a", [0.1], "failed", "no memory"), make_trial("b", [])])
    assert texts(parsed(page), "h2") == ["Result", "Learning curves", "Trials"]
    assert cards(page)["best trial"][0] == ["–", "trial a, epoch 1 of 1"]
    legend = figures["learning curves"].axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["failed"]


def test_without_epochs_there_are_no_curves(tmp_path):
    page = write(tmp_path, histories={})
    assert "Learning curves" not in texts(parsed(page), "h2")


def test_curves_survive_gaps(tmp_path):
    row, history = make_trial("a", [0.1, 0.2, 0.3])
    history.loc[1, "score"] = np.nan
    parsed(write(tmp_path, [(row, history)]))


def test_the_same_search_gives_the_same_page_in_little_time(tmp_path):
    first = write(tmp_path)
    began = time.process_time()
    assert write(tmp_path) == first
    assert time.process_time() - began < 4


def test_a_failure_leaves_the_old_page(tmp_path):
    (tmp_path / "search.html").write_text("old")
    with pytest.raises(KeyError):
        write(tmp_path, keys=["train.lrate"])
    assert (tmp_path / "search.html").read_text() == "old"
