"""python -m ray_jobs: list the verbs, each a module of its own."""

from __future__ import annotations

import ast
from pathlib import Path


def main() -> None:
    """Print what each verb is for: the first sentence of its module. None is imported."""
    print("Training, tuning and prediction on Ray; each verb takes --help:\n")
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        print("  " + " ".join(text.split("\n\n")[0].split()).partition(". ")[0].rstrip("."))
    print("\nWhat needs no Ray: python -m maskcls --help")


if __name__ == "__main__":
    main()
