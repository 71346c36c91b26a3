"""The check of GPUs runs without one, at tiny sizes, and says what it found and what is missing."""

import json
import subprocess
import sys
import time
from multiprocessing import get_context

import pytest

from benchmarks.gpu import findings, parts, report
from benchmarks.gpu.findings import Finding
from benchmarks.gpu.setting import Setting
from tests.conftest import ROOT

ON_A_GPU_ONLY = {
    "waits of a step", "two workers of a job", "fed from uint8, with that CUDA graph",
    "kernels of a step", "not compiled, CUDA graph of the model (make_graphed_callables)",
}  # fmt: skip


def setting(folder, seconds=60.0):
    now = time.monotonic()
    return Setting("cpu", True, folder, began=now, ends=now + seconds)


@pytest.mark.slow
def test_every_part_runs_at_tiny_sizes(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_check", "--tiny", "--out", str(tmp_path),
         "--budget-s", "800"],
        cwd=ROOT, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads((tmp_path / "gpu_check.json").read_text(encoding="utf-8"))
    found = content["findings"]
    assert {finding["part"] for finding in found} == set(parts.PARTS)
    missing = {finding["name"] for finding in found if finding["status"] == "not measured"}
    assert missing == ON_A_GPU_ONLY
    assert {f["text"] for f in found if f["name"] in missing} == {"no GPU"}
    rest = {finding["status"] for finding in found if finding["name"] not in missing}
    assert rest == {"passed", "measured"}
    steps = [f["figures"] for f in found if "images_s" in f["figures"]]
    assert len(steps) == 16
    assert all(figures["images_s"] > 0 for figures in steps)
    table = (tmp_path / "gpu_check.md").read_text(encoding="utf-8")
    for told in ("| resume, bfloat16 | passed |", "| + fused AdamW | **", "3 of 3: ",
                 "against"):  # fmt: skip
        assert told in table, table


def test_what_does_not_fit_the_budget_is_said(tmp_path):
    late = setting(tmp_path, seconds=-1)
    parts.run_all(["card", "backbones"], late, get_context("spawn"))
    found = findings.read(tmp_path / parts.RESULTS)
    assert len(found) == 5
    assert {(finding.status, finding.text) for finding in found} == {
        ("not measured", "out of time")
    }


def test_a_row_that_fails_is_told_and_the_others_run(tmp_path):
    context = get_context("spawn")
    crew = findings.Crew(
        0, 1, context.Event(), context.Event(), context.Barrier(1), context.Array("d", 1)
    )

    def disagrees():
        findings.require(False, "1 is not 2")

    rows = {"wrong": disagrees, "broken": lambda: 1 / 0, "right": lambda: ("fine", {"x": 1})}
    now = time.monotonic()
    path = tmp_path / "findings.jsonl"
    findings.work_off("some", rows, findings.PASSED, path, now, now + 60, crew)
    told = {finding.name: (finding.status, finding.text) for finding in findings.read(path)}
    assert told["wrong"] == ("failed", "1 is not 2")
    assert told["broken"][0] == "failed"
    assert "ZeroDivisionError" in told["broken"][1]
    assert "test_gpu_check.py:" in told["broken"][1]
    assert told["right"] == ("passed", "fine")


def test_the_table_shows_paces_against_the_first_row_and_the_limit(tmp_path):
    name = "small"
    found = [
        Finding("card", "bfloat16 matrix product", "measured", "", {"flops_s": 1e12}),
        Finding(f"step, {name}", "arithmetic", "measured", "", {"flops": 1e9}),
        Finding(f"step, {name}", "float32, contiguous, no TF32", "measured", "",
                {"images_s": 100.0, "rounds": [90.0, 100.0, 110.0]}),
        Finding(f"step, {name}", "fused AdamW", "measured", "",
                {"images_s": 250.0, "rounds": [250.0], "allocated_gb": 1.0, "reserved_gb": 2.0}),
        Finding(f"compiled, {name}", "torch.compile", "not measured", "out of time"),
        Finding("backbones", "resnet50", "failed", "the loss is nan"),
    ]  # fmt: skip
    text = report.markdown(found, setting(tmp_path), "command", 60)
    assert "1000 images/s" in text
    assert "| **100** | 90 to 110 | 1.00 | 10.0% |" in text
    assert "| + fused AdamW | **250** | 250 to 250 | 2.50 | 25.0% | 1.0 (2.0) |" in text
    assert "| + torch.compile | not measured: out of time |" in text
    assert "| resnet50 | failed | the loss is nan |" in text
