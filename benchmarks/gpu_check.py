"""Whether training on a GPU gives what it should, and how fast it is.

    python -m benchmarks.gpu_check --out FOLDER [--only PART ...] [--budget-s 420] [--tiny]

Needs one GPU, PyTorch, timm, pydantic and PyYAML; neither Ray nor photos. Checks of results:
an epoch on the CPU and on the GPU, resuming, precisions, layouts, every backbone, two workers of
a job. Measures: a training step as rungs of a ladder against the card's arithmetic limit, fed from
uint8 or not, two jobs on one card, memory. All of it with the project's own learner.

Each part has a time limit, and all together a budget; what does not fit says "not measured: out of
time". FOLDER gets gpu_check.json and gpu_check.md. `--tiny` runs everything on the CPU at sizes
that say nothing about speed. Exit status 1 where a check failed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

# A process that asked the driver for GPUs cannot be forked: let PyTorch ask another library.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

import torch

from benchmarks.gpu import findings, parts, report
from benchmarks.gpu.setting import Setting


def parsed(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--only", default="", metavar="PART,PART",
                        help=f"parts by their first letters: {'; '.join(parts.PARTS)}")  # fmt: skip
    parser.add_argument("--budget-s", type=float, default=420.0, help="seconds of all parts")
    parser.add_argument("--tiny", action="store_true", help="small sizes, on the CPU")
    parser.add_argument("--start-method", choices=["forkserver", "spawn"], default="forkserver",
                        help="spawn imports PyTorch in each part anew")  # fmt: skip
    return parser.parse_args(argv)


def chosen(only: str) -> list[str]:
    """The parts whose names begin with one of the words. Raises SystemExit for none."""
    words = tuple(word.strip() for word in only.split(",")) if only else ("",)
    names = [name for name in parts.PARTS if name.startswith(words)]
    if not names:
        sys.exit(f"no part begins with {only!r}; there are {'; '.join(parts.PARTS)}")
    return names


def main() -> None:
    arguments = parsed()
    names, began = chosen(arguments.only), time.monotonic()
    if not arguments.tiny and not torch.cuda.is_available():
        sys.exit("no GPU on this machine; --tiny runs the same checks on the CPU")
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / parts.RESULTS).unlink(missing_ok=True)
    setting = Setting(
        "cpu" if arguments.tiny else "cuda", arguments.tiny, arguments.out.absolute(), began,
        began + arguments.budget_s,
    )  # fmt: skip
    context = get_context(arguments.start_method)
    if arguments.start_method == "forkserver":
        context.set_forkserver_preload(["benchmarks.gpu.parts", "timm", "torchvision"])
    parts.run_all(names, setting, context)
    sys.exit(told(setting, time.monotonic() - began))


def told(setting: Setting, seconds: float) -> int:
    """Write the JSON and the table; the exit status."""
    found = findings.read(setting.folder / parts.RESULTS)
    command = " ".join(["python -m benchmarks.gpu_check", *sys.argv[1:]])
    content = {"command": command, "seconds": seconds, "tiny": setting.tiny,
               "findings": [asdict(finding) for finding in found]}  # fmt: skip
    (setting.folder / "gpu_check.json").write_text(json.dumps(content, indent=1) + "\n")
    text = report.markdown(found, setting, command, seconds)
    (setting.folder / "gpu_check.md").write_text(text, encoding="utf-8")
    failed = [finding for finding in found if finding.status == findings.FAILED]
    print(f"{len(found)} rows in {seconds:.0f} s, {len(failed)} failed; {setting.folder}")
    for finding in failed:
        print(findings.line(finding))
    return int(bool(failed))


if __name__ == "__main__":
    main()
