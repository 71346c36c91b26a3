"""python -m ray_jobs: a reader who knows no verb finds them all."""

from pathlib import Path

import ray_jobs
from ray_jobs import __main__


def test_every_verb_has_a_line_that_says_what_it_is_for(capsys):
    __main__.main()
    lines = capsys.readouterr().out.splitlines()
    for path in Path(ray_jobs.__file__).parent.glob("[!_]*.py"):
        (line,) = [line for line in lines if f"python -m ray_jobs.{path.stem}" in line]
        assert len(line.partition(": ")[2]) > 20
