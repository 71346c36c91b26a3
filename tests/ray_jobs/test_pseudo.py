"""A second sweep trains on what the first is sure of."""

import json

import pandas as pd

SMALL = ("tasks=[multi]", "train.epochs=1")


def test_a_sweep_trains_on_sure_answers_of_another(verb, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    verb("sweep", *SMALL, f"run.dir={first}")
    words = (*SMALL, f"run.dir={second}", f"pseudo.run={first}", "pseudo.confidence=0")
    told = verb("sweep", *words)
    count = len(pd.read_parquet(first / "eval.parquet"))
    assert f"is sure of, mean over folds: mask {count}, gender {count}" in told
    scores = json.loads((second / "scores.json").read_text())
    assert scores["pseudo"]["photos"]["all"] == count
    assert f"{count:,} pseudo-labelled photos" in (second / "report.html").read_text()
    before, after = (
        pd.read_parquet(run / "out_of_fold.parquet").set_index(["photo", "head"]).sort_index()
        for run in (first, second)
    )
    assert before.index.equals(after.index)  # nobody else is validated on
    assert not (before["probabilities"].map(max) == after["probabilities"].map(max)).all()
    manifests = [pd.read_parquet(run / "manifest.parquet")["key"] for run in (first, second)]
    assert manifests[0].equals(manifests[1])
    told = verb("sweep", *words[:2], f"run.dir={tmp_path / 'third'}", f"pseudo.run={first}",
                "run.seed=7", ok=False)  # fmt: skip
    assert "has other folds" in told
    told = verb("sweep", *words[:2], f"run.dir={second}", ok=False)
    assert "pseudo.run: " in told
