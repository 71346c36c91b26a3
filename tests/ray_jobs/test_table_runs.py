"""Runs on tables: what folders give, byte for byte; and labels that only some photos have."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from maskcls.__main__ import main
from maskcls.labels import MISSING, NUM_JOINT
from tests.object_store import ObjectStore

HEADS = ("mask", "gender", "age")


@pytest.fixture
def rows(drawn, tmp_path):
    """The drawn people as a table."""
    main(["table", "competition", str(drawn), "--out", str(tmp_path / "photos.csv")])
    return pd.read_csv(tmp_path / "photos.csv", dtype=str, keep_default_na=False)


def scores_of(run):
    return json.loads((run / "scores.json").read_text())["out_of_fold"]


def test_a_table_gives_what_its_folders_give_byte_for_byte(verb, rows, tmp_path):
    folders, table = tmp_path / "folders", tmp_path / "table"
    verb("sweep", "tasks=[multi]", f"run.dir={folders}")
    # The order of the rows to predict is that of the submission.
    there = rows[rows["split"] == "eval"]
    shuffled = rows[rows["split"] == "train"].sample(frac=1, random_state=0)
    pd.concat([there, shuffled]).to_parquet(tmp_path / "photos.parquet")
    verb("sweep", "tasks=[multi]", f"run.dir={table}", f"data.table={tmp_path / 'photos.parquet'}")
    names = ["submission.csv", "out_of_fold.parquet", "ensemble.json", "predictions.csv",
             *(f"jobs/multi-fold{fold}/model.safetensors" for fold in range(2))]  # fmt: skip
    for name in names:
        assert (folders / name).read_bytes() == (table / name).read_bytes(), name
    assert scores_of(folders) == scores_of(table)
    # Its rows to predict, by their classes alone; without a split all rows.
    submitted = pd.read_csv(table / "submission.csv")["ans"]
    there[["path"]].to_csv(tmp_path / "new.csv", index=False)
    for name in ("photos.parquet", "new.csv"):
        verb("predict", f"run.dir={table}", f"data.table={tmp_path / name}",
             f"answers.out={tmp_path / name}.answers")  # fmt: skip
        (part,) = (tmp_path / f"{name}.answers").glob("*/part-*.parquet")
        assert pd.read_parquet(part)["ans"].tolist() == submitted.tolist()


def test_a_table_and_its_photos_on_a_store(verb, drawn, rows, tmp_path, monkeypatch):
    store = ObjectStore()
    try:
        for name, value in store.environment().items():
            monkeypatch.setenv(name, value)
        relative = rows["path"].map(lambda path: Path(path).relative_to(drawn).as_posix())
        for path, key in zip(rows["path"], relative, strict=True):
            store.put(f"set/{key}", Path(path).read_bytes())
        store.put("set/photos.csv", rows.assign(path=relative).to_csv(index=False).encode())
        verb("sweep", "tasks=[multi]", f"run.dir={tmp_path / 'folders'}")
        verb("sweep", "tasks=[multi]", f"run.dir={tmp_path / 'store'}",
             "data.root=s3://bucket/set", "data.table=s3://bucket/set/photos.csv")  # fmt: skip
    finally:
        store.server.stop()
    submissions = [pd.read_csv(tmp_path / run / "submission.csv") for run in ("folders", "store")]
    assert submissions[0]["ans"].tolist() == submissions[1]["ans"].tolist()
    assert scores_of(tmp_path / "folders") == scores_of(tmp_path / "store")


def test_masks_of_some_people_and_ages_of_others(verb, rows, tmp_path):
    train = rows["split"] == "train"
    people = rows.loc[train, "person"].unique()
    first = rows["person"].isin(people[::2])
    masks, others = train & first, train & ~first
    rows.loc[masks, ["gender", "age"]] = ""
    rows.loc[others, "mask"] = ""
    rows.to_csv(tmp_path / "mixed.csv", index=False)
    run = tmp_path / "run"
    told = verb("sweep", "tasks=[multi,mask]", f"data.table={tmp_path / 'mixed.csv'}",
                "folds.allow_thin=true", f"run.dir={run}")  # fmt: skip
    assert f"labels of {train.sum()} photos: mask {masks.sum()}, gender {others.sum()}" in told

    out_of_fold = pd.read_parquet(run / "out_of_fold.parquet")
    assert (out_of_fold["truth"] != MISSING).all()
    mask_of = rows[masks]["path"]
    sizes = out_of_fold.groupby(["task", "head"]).size().to_dict()
    assert sizes == {("mask", "mask"): len(mask_of), ("multi", "mask"): len(mask_of),
                     ("multi", "gender"): others.sum(), ("multi", "age"): others.sum()}  # fmt: skip
    scores = scores_of(run)
    assert set(scores) == set(HEADS)  # nobody has all three
    assert scores["mask"]["photos"] == masks.sum() and scores["age"]["photos"] == others.sum()
    answers = pd.read_csv(run / "submission.csv")
    assert len(answers) == (~train).sum() and answers["ans"].isin(range(NUM_JOINT)).all()
    page = (run / "report.html").read_text()
    assert "photos with a label: mask" in page and "gender or age not known" in page

    # The same run goes on; labels, eda and check read the same table.
    assert "2 of 4" not in verb("sweep", "tasks=[multi,mask]", "folds.allow_thin=true",
                                f"data.table={tmp_path / 'mixed.csv'}",
                                f"run.dir={run}")  # fmt: skip
    assert main(["labels", str(run)]) == 0
    assert main(["eda", str(tmp_path / "mixed.csv"), "--out", str(tmp_path / "eda")]) == 0
    assert "unknown" in (tmp_path / "eda" / "index.html").read_text()
    status = main(["check", str(tmp_path / "mixed.csv"), "--out", str(tmp_path / "checked")])
    assert status in (0, 1)
    assert np.isfinite([values["macro_f1"] for values in scores.values()]).all()
