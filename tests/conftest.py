"""One small drawn data set and one small local cluster for all tests that need them."""

from __future__ import annotations

import gc
import importlib
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parents[1]
# One thread a process: tests share few cores with Ray's workers.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray gives workers the lowest priority but four: whatever else runs would starve them.
os.environ.setdefault("RAY_worker_niceness", "0")
# Shared machines pause: a slow example is not a wrong one. A change fails the tests, not chance.
settings.register_profile("shared", deadline=None, derandomize=True)
settings.load_profile("shared")

TINY = [
    "model.name=test_efficientnet",
    "image.size=[32,24]",
    "folds.count=2",
    "train.epochs=2",
    "train.lr=3e-3",
    "augment.name=flip",
    # Each lane costs seconds of imports: only tests about several of them start several.
    "resources.jobs_at_once=1",
]
"""A model of 0.1 M parameters on thumbnails: a job takes about a second."""


ALLOWED_SKIPS = {"no GPU": "the machines of CI have none; see `benchmarks.gpu_check`"}
"""Beginnings of reasons for which a test may be skipped in CI, and why they may."""


STARTS_RAY = {"cluster", "swept", "others_cluster"}
"""Fixtures that start Ray; whoever uses one is marked for it."""


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items):
    for item in items:
        if STARTS_RAY & set(item.fixturenames):
            item.add_marker(pytest.mark.ray)
    # A process has one cluster at a time: this one ends that of the session.
    items.sort(key=lambda item: "logical_gpus" in item.fixturenames)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """In CI a test that is skipped has failed, unless ``ALLOWED_SKIPS`` knows its reason."""
    report = (yield).get_result()
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not reason.startswith(tuple(ALLOWED_SKIPS)):
            report.outcome = "failed"
            report.longrepr = f"skipped, which CI does not allow: {reason}"


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """A data root with drawn faces: 42 people to train on, 6 to predict."""
    from examples.drawn_faces import draw

    root = tmp_path_factory.mktemp("drawn") / "data"
    return draw.draw(root, people=42, eval_people=6, seed=1, height=64, width=48)


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Prepared images, shared by all tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def cluster():
    """A cluster of two CPUs on this machine, as the verbs start it; yields its address, which is
    what other processes find it by (RAY_ADDRESS)."""
    import ray

    from ray_jobs.cluster.connect import quiet

    os.environ.pop("RAY_ADDRESS", None)
    quiet()
    context = ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    yield context.address_info["gcs_address"]
    ray.shutdown()


BROWSERS = ("chromium", "chromium-browser", "google-chrome")


# A module, not a session: Playwright keeps an event loop running in the thread while it is up.
@pytest.fixture(scope="module")
def browser():
    """A real browser, to look at pages as a reader does; see ``faults_of``."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser to look at pages with: install one of {', '.join(BROWSERS)}")
    with playwright.sync_playwright() as driver:
        # Without its sandbox, since tests often run as root; it sees no page but ours.
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


PATIENCE_MS = 300_000
"""How long a browser may take: other programs may have the CPUs."""


def new_page(browser, **options):
    page = browser.new_page(**options)
    page.set_default_timeout(PATIENCE_MS)
    return page


def faults_of(browser, path, width, media="screen"):
    """What is wrong with a page opened from disk, without a network, ``width`` pixels wide.

    A sheet of A4 with margins of 1 cm is 718 pixels wide for ``media="print"``.
    """
    page = new_page(browser, viewport={"width": width, "height": 900})
    page.emulate_media(media=media)
    faults = []
    page.on("console", lambda told: faults.append(f"console {told.type}: {told.text}"))
    page.on("pageerror", lambda error: faults.append(f"error: {error}"))
    page.on(
        "request",
        lambda asked: (
            asked.url.startswith(("file:", "data:")) or faults.append(f"asks for {asked.url}")
        ),
    )
    page.context.set_offline(True)
    page.goto(path.resolve().as_uri(), wait_until="load")
    faults += page.evaluate(FAULTS)
    page.close()
    return faults


FAULTS = """async () => {
  const told = [], root = document.documentElement
  for (const image of document.images) {
    await image.decode().catch(() => {})
    if (!image.naturalWidth) told.push("no picture: " + image.alt)
    if (!image.hasAttribute("alt")) told.push("no alt text: " + image.src.slice(0, 80))
  }
  if (root.scrollWidth > root.clientWidth)
    told.push(`${root.scrollWidth} pixels wide on ${root.clientWidth}`)
  return told
}"""


@pytest.fixture
def program(drawn, cache):
    """Run ``python -m ray_jobs.<name>`` as a user does, with a limit; returns what it printed."""

    def run(name, *words, ok=True, env=(), timeout_s=600):
        done = subprocess.run(
            command(name, *words, drawn=drawn, cache=cache),
            cwd=ROOT,
            env={**os.environ, **dict(env)},
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        told = done.stdout + done.stderr
        assert (done.returncode == 0) == ok, told
        assert "Traceback" not in told, told
        return told

    return run


@pytest.fixture
def here(drawn, cache, monkeypatch, capsys):
    """A verb in this process, which spares seconds of imports: its exit status and what it told."""
    from ray_jobs.run import console

    def run(name, *words):
        monkeypatch.setattr(sys, "argv", command(name, *words, drawn=drawn, cache=cache)[2:])
        status = 0
        try:
            importlib.import_module(f"ray_jobs.{name}").main()
        except SystemExit as ended:
            status = ended.code
        finally:
            gc.unfreeze()  # a program that ends has no use for its objects, this process has
            for room in console.LOGGERS:
                logger = logging.getLogger(room)
                for handler in logger.handlers:
                    handler.close()
                logger.handlers, logger.propagate = [], True
                logger.setLevel(logging.NOTSET)
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    return run


@pytest.fixture
def verb(cluster, here, monkeypatch):
    """As ``program``, but in this process, on the session's cluster; lanes are its threads."""
    import torch

    from tests import one_process  # imports PyTorch and Ray, which few tests need

    threads = torch.get_num_threads()
    one_process.use_lanes_here(monkeypatch)

    def run(name, *words, ok=True):
        status, told = here(name, *words)
        assert (status == 0) == ok, told
        assert "Traceback" not in told, told
        return told

    yield run
    torch.set_num_threads(threads)


def command(name, *words, drawn, cache):
    """The command line of a verb on the drawn faces; later words win."""
    return [
        sys.executable, "-m", f"ray_jobs.{name}", f"data.root={drawn}", f"data.cache={cache}",
        *TINY, *words,
    ]  # fmt: skip
