"""How an ensemble answers: very many photos, and over HTTP."""

from __future__ import annotations

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from maskcls.config.types import AbsolutePath, Section


class Answers(Section):
    """The verb `ray_jobs.predict`."""

    out: AbsolutePath | None = Field(
        None,
        description="Folder of the answers; null: `predictions/<photos>` in `run.dir`. A bundle "
        "needs one.",
    )
    photos_per_part: PositiveInt = Field(
        512,
        description="Photos in one file of answers, at most; what was not written when a program "
        "ended is done again.",
    )


class Serve(Section):
    """The service of `ray_jobs.serve`. The token of its users is the variable MASKCLS_TOKEN."""

    host: str = Field(
        "127.0.0.1",
        description="Address to listen at. Any but this machine's own (127.0.0.1, localhost, ::1) "
        "needs the environment variable MASKCLS_TOKEN.",
    )
    port: int = Field(8000, ge=1, le=65535, description="Port to listen at.")
    replicas: PositiveInt = Field(1, description="Processes that hold the models, over all nodes.")
    gpus_per_replica: NonNegativeFloat = Field(
        0.0, description="GPUs a replica; a fraction lets replicas share one."
    )
    threads_per_replica: PositiveInt = Field(
        1, description="CPU threads, and CPUs of the cluster, that a replica computes with."
    )
    batch_size: PositiveInt = Field(
        16, description="Photos of different requests that go through the models together."
    )
    max_files: PositiveInt = Field(16, description="Photos in one request.")
    max_megabytes: PositiveFloat = Field(10.0, description="Size of one photo's file.")
    max_pixels: PositiveInt = Field(
        24_000_000, le=64_000_000, description="Pixels of one photo, height times width."
    )
    max_waiting: PositiveInt = Field(
        256, description="Photos that may wait; more are answered with 503 at once."
    )
