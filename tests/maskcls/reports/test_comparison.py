import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from maskcls.labels import Task
from maskcls.reports import comparison, finished_run
from tests import made_run
from tests.conftest import faults_of
from tests.maskcls.reports.test_run import check


def made(folder, **options):
    return finished_run.read(made_run.make(folder, photos=False, weights=False, **options))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A bad run and a better one, of the same people."""
    return [
        made(tmp_path_factory.mktemp(name), errors=errors, seed=seed)
        for name, errors, seed in (("bad", 0.4, 1), ("good", 0.1, 2))
    ]


def test_a_better_run_is_told_with_its_interval(runs):
    found = comparison.compare(*runs, ["bad", "good"])
    assert (found.people, found.photos, found.relabelled) == (40, 280, 0)
    for target, gain in found.gains.items():
        first, second = (
            f1_score(
                r.answers[f"{target}_truth"], r.answers[f"{target}_predicted"], average="macro"
            )
            for r in runs
        )
        assert found.scores[target] == pytest.approx((first, second))
        assert gain.value == pytest.approx(second - first)
        assert 0 < gain.low < gain.value < gain.high
    assert found.verdict.startswith("good is better than bad: joint +0.")
    back = comparison.compare(*runs[::-1], ["good", "bad"])
    assert back.verdict.startswith("bad is worse than good")


def test_noise_is_called_noise(tmp_path):
    one, two = (made(tmp_path / str(seed), seed=seed, people=30) for seed in (1, 2))
    found = comparison.compare(one, two, ["one", "two"])
    assert found.verdict.startswith("no clear difference between two and one")
    assert found.gains["mask"].low < 0 < found.gains["mask"].high


def test_a_run_equals_itself(runs):
    found = comparison.compare(runs[0], runs[0], ["a", "b"])
    assert all((gain.value, gain.low, gain.high) == (0, 0, 0) for gain in found.gains.values())


def test_only_people_in_common_count(runs, tmp_path):
    other = made(tmp_path, people=40, first=30, errors=0.1, seed=3)
    found = comparison.compare(runs[0], other, ["a", "b"])
    assert (found.people, found.photos) == (10, 70)
    shared = runs[0].answers[runs[0].answers["person"].isin(other.answers["person"])]
    expected = f1_score(shared["age_truth"], shared["age_predicted"], average="macro")
    assert found.scores["age"][0] == pytest.approx(expected)


def test_nobody_in_common_is_an_error(runs, tmp_path):
    other = made(tmp_path, first=1000)
    with pytest.raises(ValueError, match="a and b have no person in common"):
        comparison.compare(runs[0], other, ["a", "b"])


def test_nothing_in_common_is_an_error(tmp_path):
    one, two = (made(tmp_path / str(task), tasks=[task]) for task in (Task.AGE, Task.MASK))
    with pytest.raises(ValueError, match="a answers age and b mask: nothing to compare"):
        comparison.compare(one, two, ["a", "b"])


def test_photos_with_other_labels_are_left_out_and_counted(tmp_path):
    one = made(tmp_path / "one")
    folder = made_run.make(tmp_path / "two", photos=False, weights=False)
    path = folder / "out_of_fold.parquet"
    rows = pd.read_parquet(path)
    flipped = (rows["task"] == "gender") & (rows["person"] == "000003")
    rows.loc[flipped, "truth"] = 1 - rows.loc[flipped, "truth"]
    rows.to_parquet(path)
    found = comparison.compare(one, finished_run.read(folder), ["a", "b"])
    assert (found.people, found.photos, found.relabelled) == (39, 273, 7)


@pytest.mark.parametrize("width", [390, 1400])
def test_a_browser_shows_the_page_offline_without_a_fault(browser, runs, tmp_path, width):
    comparison.write(tmp_path / "comparison.html", [*runs, runs[0]])
    assert faults_of(browser, tmp_path / "comparison.html", width) == []


def test_the_page_tells_what_is_printed(runs, tmp_path):
    path = tmp_path / "a comparison.html"
    found = comparison.write(path, runs)
    printed = comparison.table(found)
    text = path.read_text(encoding="utf-8")
    checker = check(text)
    names = comparison.names_of(runs)
    rows = checker.table("", names[1], names[0])
    assert np.array_equal(rows, printed.iloc[:, 2:-1].to_numpy())
    assert printed["people"].unique().tolist() == [40]
    assert f"<h2>{found[0].verdict}</h2>" in text
    assert "40 people in common, 280 photos." in text


def test_the_page_says_which_settings_differ(runs, tmp_path):
    def rows_of(*compared):
        comparison.write(tmp_path / "comparison.html", compared)
        return check((tmp_path / "comparison.html").read_text(encoding="utf-8"))

    own = {"recipes": {"age": {"loss": {"name": "focal", "gamma": 1.5}}}}
    own |= {"train": {"lr": 5e-3}, "pseudo": {"confidence": 0.9}}
    other = made(tmp_path / "other", recipe=own)
    names = comparison.names_of([runs[0], other])
    rows = {row[0]: row[1:] for row in rows_of(runs[0], other).table("key", *names)}
    assert rows["train.lr"][1] == "0.005"
    assert rows["loss.name (task age)"][1] == "focal"
    assert rows["loss.gamma (task age)"] == ["", "1.5"]
    assert rows["pseudo.confidence"][1] == "0.9"
    assert not [key for key in rows if key.startswith("image.")]
    same = rows_of(runs[0], runs[0])
    assert not [table for table in same.tables if table[0][0] == "key"]


def test_runs_of_one_name_are_told_apart_by_their_paths(runs):
    assert comparison.names_of(runs) == [str(run.folder) for run in runs]
    assert comparison.names_of(runs[:1]) == ["run"]
