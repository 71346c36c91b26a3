"""What becomes of tests that are skipped."""

from types import SimpleNamespace

import pytest

from tests import conftest


def outcome(reason):
    """What becomes of the report of a test that was skipped for a reason."""
    report = SimpleNamespace(
        skipped=True, outcome="skipped", longrepr=("file.py", 1, f"Skipped: {reason}")
    )
    hook = conftest.pytest_runtest_makereport(None, None)
    next(hook)
    with pytest.raises(StopIteration):
        hook.send(SimpleNamespace(get_result=lambda: report))
    return report.outcome


def test_in_ci_a_skipped_test_has_failed_unless_its_reason_is_known(monkeypatch):
    monkeypatch.setenv("CI", "true")
    assert outcome("playwright is not installed") == "failed"
    assert outcome(f"{next(iter(conftest.ALLOWED_SKIPS))} here") == "skipped"
    monkeypatch.delenv("CI")
    assert outcome("playwright is not installed") == "skipped"
