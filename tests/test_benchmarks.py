"""The programs behind `make bench` still run, and what they reckon with is right."""

import itertools
import subprocess
import sys
from types import SimpleNamespace

import pytest
from sklearn.metrics import f1_score

from benchmarks import (
    ablation,
    bench,
    disturbed,
    faults,
    packing,
    private_names,
    profile_sweep,
    rows,
    time_to_score,
)
from maskcls.config.load import ConfigError
from maskcls.storage import files
from tests import made_run
from tests.conftest import ROOT


def test_warnings_that_ray_prints_behind_an_answer_are_no_part_of_it():
    warning = "(raylet) The node with node id: 1f has been marked dead\n\t(2) raylet has lagging\n"
    assert disturbed.answer_of(f'{warning}FOUND ["queue", 3]\n{warning}') == ["queue", 3]


@pytest.mark.parametrize("seconds", [[3, 3, 2, 2, 2], [5, 1, 1, 1], [1.5, 2.5, 3.5, 4.5, 0.5, 1]])
@pytest.mark.parametrize("machines", [1, 2, 3])
def test_the_best_makespan_is_that_of_trying_every_schedule(seconds, machines):
    def makespan(places):
        return max(
            sum(s for s, place in zip(seconds, places, strict=True) if place == machine)
            for machine in range(machines)
        )

    best = min(map(makespan, itertools.product(range(machines), repeat=len(seconds))))
    assert packing.best_makespan(seconds, machines) == pytest.approx(best, rel=2e-3)


def test_a_part_inside_another_one_interrupts_it(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(profile_sweep, "time", SimpleNamespace(time=lambda: clock.now))
    stopwatch = profile_sweep.Stopwatch()

    def work(seconds):
        clock.now += seconds

    with stopwatch.part("update"):
        work(1)
        stopwatch.timed("forward", work)(2)
        with stopwatch.part("validate"):
            stopwatch.timed("forward", work)(4)
        work(8)
    found = {
        part: seconds for part, seconds in profile_sweep.totals(stopwatch.spans).items() if seconds
    }
    assert found == {"update": 9, "forward": 2, "validate": 4}


def test_the_picture_of_a_sweep_has_a_strip_a_process():
    spans = {
        "driver": [("import", 0.0, 1.0), ("wait", 1.0, 10.0)],
        "lane 0": [("start", 1.0, 4.0), ("forward", 4.0, 9.0), ("vote", 9.0, 10.0)],
    }
    figure = profile_sweep.draw(spans)
    assert [axes.get_ylabel() for axes in figure.axes[:2]] == ["driver", "lane 0"]
    assert "56%" in figure._suptitle.get_text().replace(" ", "")


def test_the_table_tells_which_bounds_are_reached_and_what_was_not_measured(tmp_path):
    found = [
        rows.Row("fast", "slow", [4, 6, 5], must=4, aim=6),
        rows.Row("large", "small", [1.4], must=1.3, aim=1, at_most=True),
        rows.Row("elsewhere", "here", must=1, note="no GPU"),
        rows.Row("choice", "none", [1.5, 1.25]),
    ]
    path = tmp_path / "RESULTS.md"
    path.write_text(f"# Results\n{bench.BEGIN}\nold\n{bench.END}\nmore\n", encoding="utf-8")
    bench.put(bench.report(found, "command", 60), path)
    text = path.read_text(encoding="utf-8")
    assert "old" not in text
    assert text.startswith("# Results\n")
    assert text.endswith("more\n")
    assert "| fast | slow | **5.00** | 4.00 to 6.00 (3 runs) | 4 | 6 | reached |" in text
    assert "| ≤ 1.3 | ≤ 1 | missed |" in text
    assert "| not measured | no GPU |" in text
    assert text.index("Choices") < text.index("| choice |")


def finished(folder, seconds, **options):
    """A run of the ablation, of 40 people."""
    run = made_run.make(folder, photos=False, weights=False, votes=False, **options)
    files.write_json(run.with_suffix(".json"), {"seconds": seconds})
    return run


def test_the_ablation_compares_with_the_base_on_the_seeds_that_both_have(tmp_path):
    base = {s: finished(tmp_path / f"base{s}", 100 * s, errors=0.4, seed=s) for s in (1, 2, 3)}
    better = {s: finished(tmp_path / f"better{s}", 50.0, errors=0.1, seed=s + 9) for s in (1, 3)}
    told = ablation.row("better", better, base)
    assert (told["seeds"], told["seconds"]) == ("2", "50")
    answers = ablation.answers_of(better)
    assert len(answers) == 2 * 280
    expected = f1_score(answers["age_truth"], answers["age_predicted"], average="macro")
    assert told["age"] == f"{expected:.3f}"
    before = ablation.answers_of({s: base[s] for s in (1, 3)})
    gain = expected - f1_score(before["age_truth"], before["age_predicted"], average="macro")
    assert told["age, gain"].startswith(f"{gain:+.3f} (+")
    assert ablation.row("base", base, base)["seconds"] == "200"
    assert ablation.table([told]).count("|") == 3 * (len(told) + 1)


@pytest.mark.parametrize(
    ("finds", "told"),
    [
        (["identical"], ("identical", 1)),
        (["missed: no worker", "missed: no worker", "lost: it failed"], ("lost: it failed", 3)),
        (["missed: no worker"] * faults.MOMENTS, ("missed: no worker", faults.MOMENTS)),
    ],
)
def test_a_round_whose_victim_was_gone_is_repeated_at_another_moment(finds, told, monkeypatch):
    moments, left = [], iter(finds)

    def play(case, data, rng, expected):
        assert expected == {"a": b"two"}
        moments.append(rng.random())
        return next(left)

    monkeypatch.setattr(faults, "play", play)
    one, two = disturbed.Sweep(), disturbed.Sweep(workers=2)
    case = faults.Case("data task", two)
    expected = {one: {"a": b"one"}, two: {"a": b"two"}}
    assert faults.until_hit(case, None, "0/1", expected) == told
    assert len(set(moments)) == len(finds)


def test_the_ablation_refuses_other_people(tmp_path):
    base = {1: finished(tmp_path / "base", 1.0)}
    others = {1: finished(tmp_path / "others", 1.0, first=100)}
    with pytest.raises(ValueError, match="scored on different photos"):
        ablation.row("others", others, base)


def test_every_overlay_of_the_ablation_is_a_configuration_and_has_a_folder_of_its_own(tmp_path):
    names = ablation.Overlays.read(ablation.LIST).words
    assert len({ablation.folder_of(tmp_path, name, 1) for name in names}) == len(names) > 10
    bad = tmp_path / "list.yaml"
    bad.write_text("config: laptop\nbase: []\noverlays: {typo: [train.emma=0.9]}")
    with pytest.raises(ConfigError, match=r"train\.emma"):
        ablation.Overlays.read(bad)


@pytest.mark.ray
def test_the_benchmarks_run(drawn):
    # Two of them, which share most of what the others are made of; both at once.
    measures = {"scale": ("a photo's rows", "a job's way"),
                "pipeline": ("second epoch on", "first epoch")}  # fmt: skip
    programs = {
        part: subprocess.Popen(
            [sys.executable, "-m", "benchmarks.bench", str(drawn), "--quick", "--only", part],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for part in measures
    }  # fmt: skip
    try:
        for part, program in programs.items():
            told, _ = program.communicate(timeout=400)
            assert program.returncode == 0, told
            assert all(measure in told for measure in measures[part]), told
    finally:
        for program in programs.values():
            program.kill()


@pytest.mark.parametrize("piece", private_names.PIECES, ids=lambda piece: piece.name)
def test_a_copy_lacks_one_piece_and_nothing_else(piece, tmp_path):
    copy = private_names.without(piece, tmp_path)
    changed = [
        str(path.relative_to(copy))
        for path in copy.rglob("*")
        if path.is_file() and path.read_bytes() != (ROOT / path.relative_to(copy)).read_bytes()
    ]
    assert changed == [piece.file]
    compile((copy / piece.file).read_text(), piece.file, "exec")


def test_the_clock_stops_at_the_score_that_is_on_disk(tmp_path):
    run = made_run.make(tmp_path, photos=False, weights=False)
    assert time_to_score.written_score(run) is None
    rows = files.read_parquet(run / "out_of_fold.parquet")
    for task, of_task in rows.groupby("task"):
        assert time_to_score.written_score(run) is None  # the others are still missing
        of_task.to_parquet(run / "jobs" / f"{task}-fold0" / "out_of_fold.parquet")
    told = files.read_json(run / "scores.json")["out_of_fold"]["joint"]["macro_f1"]
    assert time_to_score.written_score(run) == pytest.approx(told)
