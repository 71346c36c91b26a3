"""Images that a node lacks are prepared once, with all its CPUs."""

import os
import threading
import time

import numpy as np
import pandas as pd

from maskcls.data import prepared
from maskcls.data.preprocess import Preprocessing
from ray_jobs.data import source
from ray_jobs.data.source import ImageSource


def test_one_process_prepares_and_the_others_wait(tmp_path, monkeypatch):
    table = tmp_path / "table.parquet"
    pd.DataFrame({"key": ["a"], "path": ["/nowhere"]}).to_parquet(table)
    images = ImageSource(tmp_path / "cache" / "0-32x24", table, Preprocessing(32, 24))
    done, calls = threading.Event(), []

    def open_it(self):
        if not done.is_set():
            raise FileNotFoundError
        return np.zeros((1, 32, 24, 3), np.uint8)

    def prepare(photos, recipes, cache, *, threads):
        calls.append(threads)
        time.sleep(0.3)
        done.set()

    monkeypatch.setattr(prepared.Prepared, "open", open_it)
    monkeypatch.setattr(source.images, "prepare", prepare)
    tasks = [threading.Thread(target=images.open) for _ in range(4)]
    for task in tasks:
        task.start()
    for task in tasks:
        task.join()
    assert calls == [len(os.sched_getaffinity(0))]
