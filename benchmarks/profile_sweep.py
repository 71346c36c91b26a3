"""Where each second of a sweep goes, as a picture: start, import, data, forward, backward, ...

    python -m benchmarks.profile_sweep DATA [--out benchmarks/profile.png] [--people 60]

One sweep of `benchmarks.sweep_speed` runs with a stopwatch around the functions that its parts are
made of; nothing in the product knows of it. Seconds of a part are those in which nothing inside it
is timed itself. Ray Data's tasks are other processes: "data" is how long a lane waits for a batch.
"""

from __future__ import annotations

import argparse
import functools
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import matplotlib
import numpy as np
import psutil
from matplotlib.figure import Figure

from maskcls.reports.page import GREY, PLOT_STYLE

COLOURS = {
    "start": GREY,
    "import": "#374151",
    "prepare": "#f0e442",
    "data": "#e69f00",
    "forward": "#56b4e9",
    "backward": "#0072b2",
    "update": "#004b75",
    "validate": "#009e73",
    "predict": "#7cc7ae",
    "write": "#cc79a7",
    "vote": "#d55e00",
    "wait": "#eef0f3",
}
"""Parts in the order in which they are stacked. ``wait`` is for another process."""

WHOLE = {"validate", "predict", "write", "vote"}
"""Parts that count for themselves what is timed inside them."""

BINS = 150
"""Columns of the picture."""

Spans = list[tuple[str, float, float]]
"""Part, start and end in seconds since 1970."""


@dataclass
class Stopwatch:
    """In what part a process was when. A part inside another one interrupts it."""

    spans: Spans = field(default_factory=list)
    open_parts: list[str] = field(default_factory=list)
    since: float = 0.0

    def _turn(self) -> None:
        now = time.time()
        if self.open_parts:
            self.spans.append((self.open_parts[-1], self.since, now))
        self.since = now

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        if self.open_parts and self.open_parts[-1] in WHOLE:
            yield
            return
        self._turn()
        self.open_parts.append(name)
        try:
            yield
        finally:
            self._turn()
            self.open_parts.pop()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(*args: Any, **options: Any) -> Any:
            with self.part(name):
                return function(*args, **options)

        return wrapped

    def each(self, name: str, function: Callable[..., Iterator[Any]]) -> Callable[..., Any]:
        """Times every step of the iterator that ``function`` makes."""

        def wrapped(*args: Any, **options: Any) -> Iterator[Any]:
            iterator = function(*args, **options)
            while True:
                with self.part(name):
                    try:
                        value = next(iterator)
                    except StopIteration:
                        return
                yield value

        return wrapped

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(self.spans), encoding="utf-8")


def watch(
    stack: ExitStack,
    parts: Mapping[str, Sequence[tuple[Any, str]]],
    how: Callable[[str, Callable[..., Any]], Any],
) -> None:
    """Put a stopwatch around functions, given as who holds them and their names."""
    for part, places in parts.items():
        for holder, name in places:
            wrapped = how(part, getattr(holder, name))
            stack.enter_context(mock.patch.object(holder, name, wrapped))


def lane_loop(folder: Path, config: dict[str, Any]) -> None:
    """What a lane's worker runs in place of ``ray_jobs.lanes.worker_loop.lane_loop``."""
    stopwatch = Stopwatch([("start", psutil.Process().create_time(), time.time())])
    with stopwatch.part("import"):
        import timm  # noqa: F401 -- else the first model imports it
        import torch

        from maskcls.learning import checkpoint
        from maskcls.learning.backbones import Classifier
        from maskcls.learning.learner import Learner
        from maskcls.learning.predict import Normalize
        from maskcls.reports import gallery
        from ray_jobs.data import stream
        from ray_jobs.lanes import worker_loop
        from ray_jobs.training import fit

    parts: dict[str, list[tuple[Any, str]]] = {
        "data": [(Normalize, "__call__")],
        "update": [(Learner, "step")],
        "forward": [(Classifier, "forward")],
        "backward": [(torch.Tensor, "backward")],
        "validate": [(fit, "validate"), (fit, "score")],
        "predict": [(fit, "_predict")],
        "write": [(fit, "save_best"), (fit, "_show_mistakes"),
                  (checkpoint, "save_resume"), (checkpoint, "save_weights"),
                  (gallery, "explain")],
        "wait": [(worker_loop, "_next_job")],
    }  # fmt: skip
    with ExitStack() as stack:
        watch(stack, parts, stopwatch.timed)
        watch(stack, {"data": [(stream, "batches")]}, stopwatch.each)
        with stopwatch.part("start"):
            worker_loop.lane_loop(config)
    stopwatch.write(folder / f"lane {config['lane']}.json")


def profile(words: Sequence[str], folder: Path) -> dict[str, Spans]:
    """Run a sweep; the spans of its driver and of each lane."""
    stopwatch = Stopwatch([("import", psutil.Process().create_time(), time.time())])
    with stopwatch.part("import"):
        from maskcls.config.load import load
        from maskcls.reports import run as report
        from maskcls.scoring import ensemble
        from ray_jobs import sweep
        from ray_jobs.cluster import connect
        from ray_jobs.lanes import pool
        from ray_jobs.run import console, state
        from ray_jobs.run.folder import claim

    config = load([], words).config
    parts: dict[str, list[tuple[Any, str]]] = {
        "start": [(connect, "connect")],
        "prepare": [(sweep, "prepare")],
        "wait": [(pool.Lanes, "run")],
        "vote": [(ensemble, "fit"), (ensemble, "out_of_fold_answers"), (ensemble, "scores"),
                 (sweep, "answer")],
        "write": [(report, "write")],
    }  # fmt: skip
    with ExitStack() as stack:
        watch(stack, parts, stopwatch.timed)
        in_lanes = functools.partial(lane_loop, folder)
        stack.enter_context(mock.patch.object(pool, "lane_loop", in_lanes))
        with (
            claim(config, config.tasks) as run,
            state.keeping(run.place, "sweep") as board,
            stopwatch.part("start"),
        ):
            console.setup(run.log)
            connect.connect()
            sweep.sweep(config, run, board)
    spans = {"driver": stopwatch.spans}
    called = next(start for part, start, _ in spans["driver"] if part == "wait")
    for path in sorted(folder.glob("lane *.json")):
        # Ray starts processes before anybody asks for one.
        of_lane = json.loads(path.read_text(encoding="utf-8"))
        spans[path.stem] = [(p, max(start, called), end) for p, start, end in of_lane
                            if end > called]  # fmt: skip
    return spans


def totals(spans: Spans) -> dict[str, float]:
    """Seconds of each part."""
    found = dict.fromkeys(COLOURS, 0.0)
    for part, start, end in spans:
        found[part] += end - start
    return found


def draw(spans: Mapping[str, Spans]) -> Figure:
    """A strip a process, its time from left to right, and the sums of all lanes below."""
    first = min(start for of_one in spans.values() for _, start, _ in of_one)
    last = max(end for of_one in spans.values() for *_, end in of_one)
    edges = np.linspace(0, last - first, BINS + 1)
    figure = Figure(figsize=(9, 2 + 1.1 * len(spans)), layout="constrained")
    *strips, sums = figure.subplots(len(spans) + 1, 1, height_ratios=[1] * len(spans) + [1.6])
    for axes, (name, of_one) in zip(strips, spans.items(), strict=True):
        shares = np.zeros((len(COLOURS), BINS))
        for part, start, end in of_one:
            inside = np.clip(edges[1:], start - first, end - first)
            shares[list(COLOURS).index(part)] += inside - np.clip(edges[:-1], start - first,
                                                                  end - first)  # fmt: skip
        shares /= edges[1]
        axes.stackplot(edges[:-1], shares, colors=list(COLOURS.values()), step="post", lw=0)
        axes.set_xlim(0, edges[-1])
        axes.set_ylim(0, 1)
        axes.set_yticks([])
        axes.set_ylabel(name)
        axes.grid(visible=False)
    strips[-1].set_xlabel("seconds")
    lanes = totals([span for name, of_one in spans.items() if name != "driver" for span in of_one])
    whole = sum(lanes.values())
    work = [part for part in COLOURS if lanes[part]]
    sums.bar(work, [lanes[part] for part in work], color=[COLOURS[part] for part in work])
    for place, part in enumerate(work):
        sums.annotate(f"{lanes[part] / whole:.0%}", (place, lanes[part]), ha="center", va="bottom")
    sums.set_ylabel("seconds, all lanes")
    sums.grid(axis="x", visible=False)
    for part, colour in COLOURS.items():
        strips[0].bar([0], [0], color=colour, label=part)
    figure.legend(loc="outside lower center", ncols=len(COLOURS) // 2, fontsize=8)
    training = sum(lanes[part] for part in ("forward", "backward", "update"))
    figure.suptitle(
        f"A sweep of {last - first:.0f} s: {training / whole:.0%} of its lanes' time is training "
        "steps", x=0.01, ha="left", fontsize=10,
    )  # fmt: skip
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("profile.png"))
    parser.add_argument("--people", type=int, default=60)
    parser.add_argument("--data-bound", action="store_true", help="a small backbone at 384 x 288")
    parser.add_argument("words", nargs="*", help="key.sub=value, for the sweep")
    arguments = parser.parse_args()
    # Here, not above: what the sweep imports is part of the picture.
    from benchmarks.sweep_speed import COMPUTE, DATA_BOUND, Bench, people_of

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench = Bench(people_of(arguments.data, arguments.people, folder / "data"), folder)
        setting = DATA_BOUND if arguments.data_bound else COMPUTE
        spans = profile([*bench.words(setting, folder / "run"), *arguments.words], folder)
        with matplotlib.rc_context(PLOT_STYLE):
            draw(spans).savefig(arguments.out, dpi=150)
    for name, of_one in spans.items():
        parts = {part: seconds for part, seconds in totals(of_one).items() if seconds}
        print(name, "  ".join(f"{part} {seconds:.1f}" for part, seconds in parts.items()))
    print(arguments.out)


if __name__ == "__main__":
    main()
