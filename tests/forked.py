"""Processes of a test's own that need PyTorch: it is imported once for all of them."""

import multiprocessing

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch.distributed", "timm", "maskcls.learning.learner"])
