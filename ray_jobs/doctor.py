"""python -m ray_jobs.doctor run.dir=RUN data.root=DATA: whether a run could work on this cluster.

Asks every node, one task on each, and ends with what to fix. Exit code 1 where something would
break a run; what may only spoil one is a warning.
"""

from __future__ import annotations

import sys

from rich.console import Console

from maskcls.config.load import from_command_line
from ray_jobs.cluster import connect
from ray_jobs.health import diagnosis
from ray_jobs.health.examine import examine
from ray_jobs.health.table import conclusion, table
from ray_jobs.run import arguments, console

PLAIN_WIDTH = 120
"""Columns where there is no terminal."""


def main() -> None:
    config = from_command_line(__doc__ or "", arguments.words())
    console.setup()
    with console.report_errors("doctor"):
        connect.connect()
        examined = examine(config)
        found = diagnosis.findings(examined)
        screen = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False)
        screen.print(table(examined))
        screen.print("\n".join(conclusion(found)), markup=False, soft_wrap=True)
        sys.exit(any(finding.severity == "error" for finding in found))


if __name__ == "__main__":
    main()
