"""What a search keeps of its trials."""

import json

from maskcls.config.load import load
from maskcls.labels import Task
from maskcls.learning import tracking
from maskcls.storage import files
from ray_jobs.run.state import Board
from ray_jobs.search.ledger import Ledger
from ray_jobs.search.trial import TrialPlan


def write_history(trial_folder, scores):
    """The metrics of a trial that had these scores, epoch by epoch."""
    lines = [
        dict.fromkeys(tracking.COLUMNS, 0.5) | {"epoch": epoch, "val/macro_f1": score}
        for epoch, score in enumerate(scores, 1)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    files.write_text(trial_folder / "fold0" / "metrics.jsonl", text)


def end(run, name, scores):
    """A trial of these scores that has just ended."""
    write_history(run / "trials" / name, scores)
    folder = run / "trials" / name / "fold0"
    for file in ("model.safetensors", "last.safetensors", "resume.pt"):
        files.write_text(folder / file, "")
    ledger = Ledger.read(run)
    files.write_json(run / "trials.json", ledger | {name: {"state": "finished"}})


def ledger_of(run):
    config = load(words=["task=age", f"run.dir={run}"]).config
    return Ledger(TrialPlan(config, Task.AGE, None, run / "trials"), Board(run, "tune"))


def kept(run):
    return sorted(path.parents[1].name for path in run.glob("trials/*/fold0/model.safetensors"))


def test_only_the_best_ended_trial_keeps_its_weights(tmp_path):
    ledger = ledger_of(tmp_path)
    for name, scores, best in (("a", [0.5, 0.6], "a"), ("b", [0.4], "a"), ("c", [0.7, 0.2], "c"),
                               ("d", [], "c")):  # fmt: skip
        end(tmp_path, name, scores)
        ledger._tidy()
        assert kept(tmp_path) == [best]
    assert not list(tmp_path.glob("trials/*/*/resume.pt"))
    assert not list(tmp_path.glob("trials/*/*/last.safetensors"))


def test_after_a_restart_the_weights_of_all_that_ended_are_looked_at(tmp_path):
    for name, scores in (("a", [0.5]), ("b", [0.6]), ("c", [0.4])):
        end(tmp_path, name, scores)
    ledger_of(tmp_path)._tidy()
    assert kept(tmp_path) == ["b"]
