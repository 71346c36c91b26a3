import json

import numpy as np
import pandas as pd
import pytest

from maskcls.commands.vote import main
from maskcls.labels import Task
from maskcls.reports import finished_run, run_vote, vote_section
from maskcls.scoring import ensemble, submission
from maskcls.storage import files
from tests import made_run


def make(folder, **options):
    """A finished run with answers for its photos to predict."""
    run = made_run.make(folder, photos=False, weights=False, **options)
    ids = sorted(files.read_parquet(next(run.glob("votes/*/*.parquet")))["image_id"].unique())
    table = pd.DataFrame({"image_id": ids[::-1], "status": "ok", "ans": 0, "fallback": False})
    table.to_parquet(run / "predictions.parquet", index=False)
    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three models that are right on 70 %, one network that is on 80 %, of the same people."""
    folder = tmp_path_factory.mktemp("runs")
    three = make(folder / "three", errors=0.3)
    multi = make(folder / "multi", tasks=(Task.MULTI,), errors=0.2, seed=1)
    return three, multi


def told(capsys, *words, status=None):
    if status is None:
        main(list(map(str, words)))
    else:
        with pytest.raises(SystemExit) as ended:
            main(list(map(str, words)))
        assert ended.value.code == status
    captured = capsys.readouterr()
    return captured.out + captured.err


def test_runs_vote_together_and_their_file_repeats_the_vote(runs, tmp_path, capsys, without_plots):
    text = told(capsys, tmp_path / "out", *runs, "--ensemble", "greedy", "--offsets", "fit")
    assert "minus the best run" in text
    assert "mask: weights multi/run/multi" in text
    assert "age: offsets" in text
    assert "share of photos that two routes answer differently" in text
    content = json.loads((tmp_path / "out" / "vote.json").read_text())
    found = run_vote.read(runs)
    rows = run_vote.combined(found)
    answers = ensemble.out_of_fold_answers("greedy", rows, seed=42, offsets=True)
    assert content["out_of_fold"] == ensemble.scores(answers, seed=42)
    assert set(content["runs"]) == {"three/run", "multi/run"}
    assert content["routes"]["age"] == ["multi/run/multi", "three/run/age"]
    # What was written votes as what was fitted.
    fitted = ensemble.from_json(content["fitted"])
    assert fitted == ensemble.fit("greedy", rows, offsets=True)
    assert fitted["mask"].offsets is not None
    written = submission.read_answers(tmp_path / "out" / "submission.csv")
    order = files.read_parquet(runs[0] / "predictions.parquet")["image_id"].tolist()
    assert written["ImageID"].tolist() == order


def test_together_is_better_than_alone_where_mistakes_differ(runs, tmp_path):
    third = make(tmp_path / "third", tasks=(Task.MULTI,), errors=0.2, seed=2)
    vote = run_vote.fit(run_vote.read([*runs, third]), "soft", offsets=False)
    best = max(scores["joint"]["macro_f1"] for scores in vote.alone.values())
    assert vote.scores["joint"]["macro_f1"] == pytest.approx(best + vote.gain["joint"].value)
    assert vote.gain["joint"].value > 0
    assert 0.2 < vote.disagreement["mask"].iloc[0, 1] < 0.6


def test_weights_say_who_adds(runs, tmp_path):
    blind = make(tmp_path / "blind", tasks=(Task.MULTI,), errors=2 / 3, seed=5)
    vote = run_vote.fit(run_vote.read([*runs, blind]), "greedy", offsets=False)
    for target, fitted in vote.fitted.items():
        weights = dict(zip(vote.routes[target], fitted.parameters["weights"], strict=True))
        assert weights["blind/run/multi"] < 0.2
        assert sum(weights.values()) == pytest.approx(1)


def test_unreadable_photos_keep_their_marked_answer(runs, tmp_path):
    table = files.read_parquet(runs[0] / "predictions.parquet")
    marked = table.assign(fallback=np.arange(len(table)) == 1, ans=17)
    marked.to_parquet(runs[0] / "predictions.parquet", index=False)
    try:
        found = run_vote.read(runs)
        vote = run_vote.fit(found, "soft", offsets=False)
        assert run_vote.write(found, vote, "soft", tmp_path / "out")
    finally:
        table.to_parquet(runs[0] / "predictions.parquet", index=False)
    written = submission.read_answers(tmp_path / "out" / "submission.csv")
    assert written["ans"][1] == 17


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["RUN", "a.csv"], "submission files alone, or folders of runs alone"),
        (["a.csv", "--ensemble", "soft"], "are for runs"),
        (["RUN", "RUN"], "given twice"),
        (["RUN", "EMPTY"], "no finished run here"),
        (["RUN", "OTHERS"], "have no photo in common"),
    ],
)
def test_what_cannot_vote_together_is_refused(runs, tmp_path, capsys, words, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.csv").write_text("ImageID,ans\nx,1\n")
    places = {"RUN": runs[0], "a.csv": tmp_path / "a.csv", "EMPTY": tmp_path / "empty"}
    if "OTHERS" in words:
        places["OTHERS"] = make(tmp_path / "others", first=500, people=10)
    text = told(capsys, tmp_path / "out", *(places.get(word, word) for word in words), status=2)
    assert message in text
    assert not (tmp_path / "out").exists()


def test_bands_of_age_are_those_of_the_runs(runs, tmp_path):
    other = {"recipe": {"labels": {"age_limits": [20, 50]}}, "photos": False, "weights": False}
    aged = finished_run.read(made_run.make(tmp_path, offsets=True, ensemble="soft", **other))
    (offsets,) = [table for table in vote_section.tables(aged) if "offsets" in table.caption]
    (of_age,) = [row[3] for row in offsets.rows if row[0] == "age"]
    assert of_age.startswith("under 20 ")
    with pytest.raises(ValueError, match=r"three/run \(30, 60\), .*run \(20, 50\)"):
        run_vote.fit([finished_run.read(runs[0]), aged], "soft", offsets=False)
