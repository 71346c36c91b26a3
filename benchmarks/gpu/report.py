"""The findings of the GPU check as Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.gpu import compiled, findings, speed
from benchmarks.gpu.findings import FAILED, PASSED, Finding
from benchmarks.gpu.setting import Model, Setting

STEP_HEADER = (
    "| training step | images/s | spread | against the first | share of the limit | "
    "peak memory, GB (kept) |\n|---|---|---|---|---|---|"
)
CHECK_HEADER = "| check | | found |\n|---|---|---|"


def markdown(found: Sequence[Finding], setting: Setting, command: str, seconds: float) -> str:
    """The part of RESULTS.md that tells of a GPU."""
    card = {finding.name: finding for finding in findings.of(found, "card")}
    text = [f"`{command}`, {seconds:.0f} s. {_text(card, speed.MACHINE)}.", "", *_checks(found)]
    peak = _figure(card, speed.PRODUCT, "flops_s")
    for key, model in (("small", setting.small), ("large", setting.large)):
        rows = findings.of(
            found, f"step, {key}", f"compiled, {key}", f"compiled with graphs, {key}"
        )
        if rows:
            text += ["", *_steps(rows, model, peak)]
    if rows := findings.of(found, "two jobs"):
        text += ["", "Two processes on the card at once, without NVIDIA's MPS:", ""]
        text += [f"- {finding.name}: {_told(finding)}" for finding in rows]
    return "\n".join(text) + "\n"


def _checks(found: Sequence[Finding]) -> list[str]:
    lines = [CHECK_HEADER]
    for finding in findings.of(found, "correctness", "workers"):
        lines.append(f"| {finding.name} | {finding.status} | {_cell(finding.text)} |")
    backbones = findings.of(found, "backbones")
    good = [finding for finding in backbones if finding.status == PASSED]
    if backbones:
        status = PASSED if len(good) == len(backbones) else FAILED
        names = ", ".join(finding.name for finding in good)
        lines.append(f"| two steps and a prediction of {len(backbones)} backbones | {status} | "
                     f"{len(good)} of {len(backbones)}: {names} |")  # fmt: skip
    for finding in backbones:
        if finding not in good:
            lines.append(f"| {finding.name} | {finding.status} | {_cell(finding.text)} |")
    return lines


def _steps(found: Sequence[Finding], model: Model, peak: float | None) -> list[str]:
    """The ladder of one model: each row adds to the one before."""
    by_name = {finding.name: finding for finding in found}
    flops = _figure(by_name, speed.ARITHMETIC, "flops")
    limit = peak / flops if peak and flops else None
    lines = [f"{model}. Batches lie on the device; each + adds to the row before."]
    if limit and flops and peak:
        lines[0] += (
            f" Limit: {flops / 1e9:.2f} GFLOP an image (three times the forward pass) at the "
            f"{peak / 1e12:.3g} TFLOP/s of a measured bfloat16 matrix product: "
            f"{limit:.0f} images/s."
        )
    lines += ["", STEP_HEADER]
    ladder = [name for name in speed.LADDER if name != speed.GRAPH]
    first = _figure(by_name, ladder[0], "images_s")
    adding = [*ladder, *speed.COMPILED]
    for name in (*adding, speed.GRAPH):
        if name in by_name:
            title = f"+ {name}" if name in adding[1:] else name
            lines.append(_step(title, by_name[name], first, limit))
    lines.append("")
    for name in (
        speed.FED,
        speed.FED_GRAPH,
        speed.KERNELS,
        *(compiled.FIRST + name for name in speed.COMPILED),
    ):
        if name in by_name:
            lines.append(f"- {name}: {_told(by_name[name])}")
    return lines


def _step(title: str, finding: Finding, first: float | None, limit: float | None) -> str:
    figures = finding.figures
    if "images_s" not in figures:
        return f"| {title} | {_cell(_told(finding))} | | | | |"
    pace, rounds = figures["images_s"], figures["rounds"]
    against = f"{pace / first:.2f}" if first else ""
    share = f"{pace / limit:.1%}" if limit else ""
    memory = ""
    if "allocated_gb" in figures:
        memory = f"{figures['allocated_gb']:.1f} ({figures['reserved_gb']:.1f})"
    spread = f"{min(rounds):.0f} to {max(rounds):.0f}"
    return f"| {title} | **{pace:.0f}** | {spread} | {against} | {share} | {memory} |"


def _told(finding: Finding) -> str:
    good = finding.status in (PASSED, findings.MEASURED)
    return finding.text if good else f"{finding.status}: {finding.text}"


def _text(found: dict[str, Finding], name: str) -> str:
    return found[name].text if name in found else "machine not read"


def _figure(found: dict[str, Finding], name: str, figure: str) -> Any:
    return found[name].figures.get(figure) if name in found else None


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
