"""From a folder or a file to a model that answers."""

from __future__ import annotations

import os
from pathlib import Path

from maskcls.inference.model import Model


def load(path: str | Path, *, device: str = "auto", threads: int | None = None) -> Model:
    """The ensemble of a finished run, one model of it (a job folder), or a bundle.

    ``device`` is ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:1``. ``threads``
    is how many CPU threads compute; by default the library's own choice. A bundle needs neither
    PyTorch nor Ray.

    Raises FileNotFoundError where there is nothing of the kind, ValueError where it is damaged or
    of another version, ModuleNotFoundError where a package is missing.
    """
    from maskcls.inference import bundle

    place = Path(path)
    if str(path).startswith(("s3:/", "gs:/")):
        raise FileNotFoundError(
            f"{path}: load reads folders of this machine; copy it here first, or export a bundle"
        )
    if bundle.is_bundle(place):
        return bundle.load(place, device=device, threads=threads)
    # PyTorch reads this when it is imported. Its threads wait for each other many times a photo:
    # one that spins meanwhile on a core that another program wants makes all of them wait.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if (place / "ensemble.json").is_file():
        from maskcls.inference import torch_members

        return torch_members.load_run(place, device, threads)
    if (place / "checkpoint.json").is_file():
        from maskcls.inference import torch_members

        return torch_members.load_job(place, device, threads)
    if (place / "config.yaml").is_file():
        job = next(iter(sorted(place.glob("jobs/*/checkpoint.json"))), None)
        alone = f"; one of its models answers alone: {job.parent}" if job else ""
        raise FileNotFoundError(
            f"{path}: this run is not finished (no ensemble.json): the command that began it goes "
            f"on with it{alone}"
        )
    what = "no such file or folder" if not place.exists() else "nothing to load here"
    raise FileNotFoundError(
        f"{path}: {what}; a finished run (with ensemble.json), a job of one (with "
        "checkpoint.json) or a bundle (with bundle.json, or one file) is expected"
    )
