import matplotlib
import numpy as np
import pandas as pd
import pytest

from maskcls.labels import Task
from maskcls.reports import charts, page
from maskcls.reports.analysis import Agreement, Calibration, Difference
from maskcls.reports.curves import Fit


@pytest.fixture(autouse=True)
def style():
    with matplotlib.rc_context(page.PLOT_STYLE):
        yield


def title(figure):
    return figure.get_suptitle()


def years(shares):
    """Age -> (right, shares of the three bands), seven photos each."""
    return pd.DataFrame(
        {age: {"photos": 7, "right": right, 0: a, 1: b, 2: c} for age, (right, a, b, c)
         in shares.items()}).T  # fmt: skip


def test_titles_of_years_say_what_happens_at_the_limits():
    table = years(
        {
            28: (0.5, 0.5, 0.5, 0), 29: (0.3, 0.3, 0.6, 0.1), 30: (0.6, 0.4, 0.6, 0),
            31: (0.8, 0.2, 0.8, 0), 45: (1, 0, 1, 0), 59: (0.8, 0, 0.8, 0.2),
        }
    )  # fmt: skip
    right, named = charts.years(table)
    assert title(right) == "correct age: 60% near a limit, 100% elsewhere"
    assert title(named) == "28-29 predicted 30 or older: 60%, 30-31 younger: 30%"
    for figure in (right, named):
        limits = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_ls() == "--"]
        assert limits == [29.5, 59.5]


def test_the_smoothed_line_never_crosses_a_limit():
    table = years({28: (0, 1, 0, 0), 29: (0, 1, 0, 0), 30: (1, 0, 1, 0), 31: (1, 0, 1, 0)})
    right, _ = charts.years(table)
    lines = [line for line in right.axes[0].lines if line.get_ls() == "-"]
    assert [list(line.get_ydata()) for line in lines] == [[0, 0], [1, 1]]


def test_ages_far_from_the_limits_need_no_story():
    right, named = charts.years(years({45: (1, 0, 1, 0)}))
    assert title(right) == "correct age answers by age in years"
    assert title(named) == "answered age band, by age in years"


@pytest.mark.parametrize(
    ("error", "surplus", "story"),
    [(0.01, 0.01, "well calibrated"), (0.1, 0.1, "overconfident"), (0.1, -0.1, "underconfident")],
)
def test_calibration_is_judged(error, surplus, story):
    bins = pd.DataFrame({"confidence": [0.6, 0.9], "right": [0.5, 0.8], "photos": [3, 90]})
    figure = charts.reliability("age", Calibration(bins, error, surplus))
    assert title(figure) == f"age: {story}, calibration error {error:.3f}"
    # A bin of three photos is a dot, but no part of the line.
    (line,) = [line for line in figure.axes[0].lines if line.get_ls() == "-"]
    assert list(line.get_xdata()) == [0.9]


@pytest.mark.parametrize(
    ("fit", "story"),
    [
        (Fit("good", "validation loss 0.50 at the end"), "validation loss 0.50 at the end"),
        (Fit("overfitting", "training loss 0.09"), "overfitting: training loss 0.09"),
    ],
)
def test_learning_curves_say_what_they_show(fit, story):
    history = pd.DataFrame(
        {"epoch": [1, 2], "train/loss": 0.1, "val/loss": 0.5, "val/macro_f1": [0.7, 0.8]}
    )
    scored, lost = charts.learning(Task.AGE, {0: history}, {0: 2}, fit)
    assert title(lost) == f"age: {story}"
    assert title(scored) == "age: 0.800 macro F1 at the kept epoch"


def test_clear_differences_stand_out():
    found = {
        "better": Difference(0.1, 0.05, 0.15),
        "worse": Difference(-0.1, -0.15, -0.05),
        "noise": Difference(0.1, -0.1, 0.3),
    }
    axes = charts.differences("t", found).axes[0]
    dots = [line.get_color() for line in axes.lines if line.get_marker() == "o"]
    assert dots == [page.BLUE, page.ORANGE, page.GREY]


def test_agreement_and_headline_tell_their_numbers():
    found = Agreement(["a", "b"], np.array([[1, 0.7], [0.7, 1]]), 0.7, {})
    assert title(charts.agreement("age", found)) == "age: all 2 agree on 70% of the photos"
    scores = {"joint": {"macro_f1": 0.5, "macro_f1_interval": [0.4, 0.6]}}
    figure = charts.headline(scores, {"joint": 0.45}, {"joint": 0.0556})
    assert title(figure) == "joint macro F1 0.500 is 9.0 times chance"


def test_colours_differ_in_lightness_too():
    # What is left of a colour without hue: two lines of one lightness could not be told in grey.
    grey = [np.dot(matplotlib.colors.to_rgb(c), (0.299, 0.587, 0.114)) for c in page.PALETTE[:3]]
    assert np.diff(sorted(grey)).min() > 0.05
