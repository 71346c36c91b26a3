"""A sweep with a budget: it chooses once, ends in time, and predicts as it voted."""

import json

import yaml

from maskcls.scoring import submission
from ray_jobs.training import rehearsal


def test_a_budget_is_chosen_for_once_and_kept(verb, drawn, tmp_path, monkeypatch):
    for name in ("WARM_S", "MEASURE_S", "VALIDATE_S"):
        monkeypatch.setattr(rehearsal, name, 0.2)
    words = (
        f"run.dir={tmp_path}", "--budget", "5m", "tasks=[multi,gender]",
        "predict.views=[plain,flip]", "ensemble.name=greedy", "ensemble.offsets=fit",
    )  # fmt: skip
    told = verb("sweep", *words)
    assert "budget 300 s: multi (32 x 24, 2 of 2 epochs), gender" in told
    assert "budget: " in told
    kept = json.loads((tmp_path / "budget.json").read_text())
    stored = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert kept["choice"]["tasks"] == stored["tasks"] == ["multi", "gender"]
    scores = json.loads((tmp_path / "scores.json").read_text())
    fitted = json.loads((tmp_path / "ensemble.json").read_text())
    assert scores["ensemble"]["fitted"] == fitted
    assert set(fitted["gender"]["offsets"]) == {"values", "gain", "low", "high", "used"}
    page = (tmp_path / "report.html").read_text()
    assert "Decision offsets" in page
    assert "share of photos that two tasks answer differently" in page
    # The same command does not choose again.
    monkeypatch.setattr(rehearsal, "run", None)
    told = verb("sweep", *words)
    assert "chosen for the budget before, and kept" in told
    assert "4 of 4 models are trained already" in told
    told = verb("sweep", f"run.dir={tmp_path}", "--budget", "6m", *words[3:], ok=False)
    assert "was chosen for budget.time_s=300" in told
    # Prediction from the run alone: views and offsets are those of the run.
    verb("predict", f"run.dir={tmp_path}", f"data.root={drawn}")
    (written,) = tmp_path.glob("predictions/*/submission.csv")
    again, first = map(submission.read_answers, (written, tmp_path / "submission.csv"))
    assert again.equals(first)
