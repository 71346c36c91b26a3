"""Several workers of one job, as processes that share a gloo group."""

import tempfile
from pathlib import Path

import torch
import torch.distributed as dist

from tests import forked


def run(function, *arguments, world=2):
    """What ``function(rank, world, *arguments)``, of a module, returns on each worker."""
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            forked.CONTEXT.Process(target=_work, args=(folder, rank, world, function, arguments))
            for rank in range(world)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout=300)
        for process in processes:
            process.kill()
        assert [process.exitcode for process in processes] == [0] * world
        return [torch.load(Path(folder, str(rank))) for rank in range(world)]


def _work(folder, rank, world, function, arguments):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", world_size=world, rank=rank
    )
    torch.save(function(rank, world, *arguments), Path(folder, str(rank)))
    dist.destroy_process_group()
