"""Ray Data gives the pixels that a plain loop gives, in order, whatever runs where."""

import time

import numpy as np
import pytest
import ray
from ray.util import list_named_actors

from maskcls.augment import augmentations
from maskcls.data import folds, manifest, sampling
from maskcls.data import prepared as images
from maskcls.data.preprocess import Preprocessing
from ray_jobs.cluster import ray_internals
from ray_jobs.data import stream as pipeline
from ray_jobs.data.augmented import augment_steps
from ray_jobs.data.source import EPOCHS_KEPT, EpochPlan, ImageSource, _epochs, training_rows

pytestmark = pytest.mark.ray
AUGMENT = {"name": "autoaugment", "flip": 0.5}


@pytest.fixture(scope="module")
def source(drawn, cache, tmp_path_factory):
    photos = manifest.read_train(drawn).photos
    table = tmp_path_factory.mktemp("tables") / "manifest.parquet"
    photos.to_parquet(table)
    form = Preprocessing(height=32, width=24)
    (prepared,) = images.prepare(photos, [form], cache, threads=1)
    return ImageSource(prepared.folder, table, form)


@pytest.fixture(scope="module")
def table(source):
    photos = source.photos()
    people = folds.assign(photos, 2, seed=1)
    rules = [{"ages": (0, 120), "gender": None}]
    return folds.training_table(photos, people, 0, seed=1, blend=rules)


def make_plan(table, batch_size=32, **options):
    return EpochPlan(
        rows=training_rows(table),
        labels_N=table["gender"].to_numpy(),
        shares=np.array([0.5, 0.5]),
        batch_size=batch_size,
        seed=7,
        **options,
    )


def by_a_plain_loop(source, plan, epoch):
    photos = source.open()
    apply = augmentations.build(**AUGMENT)
    drawn = plan.epoch(epoch)
    pictures = []
    for item, draw in zip(drawn.items_N, drawn.draws_N, strict=True):
        image = photos[plan.rows["row"][item]].astype(float)
        if plan.rows["row2"][item] >= 0:
            weight = plan.rows["weight2"][item]
            image = (1 - weight) * image + weight * photos[plan.rows["row2"][item]]
        rng = np.random.default_rng((plan.seed, epoch, int(plan.rows["key"][item]), int(draw)))
        pictures.append(apply(np.rint(image).astype(np.uint8), rng))
    return drawn, np.stack(pictures)


@pytest.mark.parametrize("images_per_task", [20, 64, 300])
def test_pixels_and_order_do_not_depend_on_the_size_of_tasks(
    cluster, source, table, monkeypatch, images_per_task
):
    monkeypatch.setattr(pipeline, "IMAGES_PER_TASK", images_per_task)
    plan = make_plan(table)
    batches = list(
        pipeline.batches(source, plan, AUGMENT, first_epoch=2, last_epoch=3, title="run:x")
    )
    assert [(b.epoch, b.step) for b in batches] == [
        (epoch, step) for epoch in (2, 3) for step in range(plan.steps)
    ]
    for epoch in (2, 3):
        drawn, expected = by_a_plain_loop(source, plan, epoch)
        mine = [b for b in batches if b.epoch == epoch]
        assert np.array_equal(np.concatenate([b.items_B for b in mine]), drawn.items_N)
        got = np.concatenate([b.images_BHWC for b in mine]).astype(int)
        # A blend may round a half the other way before it is augmented.
        plain = plan.rows["row2"][drawn.items_N] < 0
        assert np.array_equal(got[plain], expected[plain])


def test_streams_share_the_cluster_and_ask_no_autoscaler(cluster, source, table, monkeypatch):
    asked = []

    def streams():
        asked.append(1)
        return 2

    plan = make_plan(table)
    stream = pipeline.batches(
        source, plan, AUGMENT, first_epoch=1, last_epoch=1, title="run:x", streams=streams
    )
    assert len(list(stream)) == plan.steps
    assert asked
    named = [actor["name"] for actor in list_named_actors(all_namespaces=True)]
    assert "AutoscalingCoordinator" not in named
    monkeypatch.setattr(pipeline.ray, "cluster_resources", lambda: {"CPU": 8.0, "GPU": 4.0})
    for running, cpus in ((0, 8), (1, 8), (2, 4), (16, 1)):
        assert ray_internals.FixedShare(lambda n=running: n).get_total_resources().cpu == cpus


def test_a_stream_says_that_it_waits_for_a_cpu_until_there_is_one(
    cluster, source, table, monkeypatch
):
    monkeypatch.setattr(pipeline, "LATE_S", 0.5)
    calls = []
    holder = Holder.remote()  # another program, for all that the stream knows
    ray.get(holder.here.remote(), timeout=60)
    plan = make_plan(table)

    def wait_for_cpu():
        calls.append(1)
        if len(calls) == 3:
            ray.kill(holder)

    stream = pipeline.batches(
        source, plan, AUGMENT, first_epoch=1, last_epoch=1, title="run:x", wait_for_cpu=wait_for_cpu
    )
    assert len(list(stream)) == plan.steps
    assert len(calls) >= 3
    before = len(calls)
    time.sleep(2)  # the thread that looked has ended with the wait
    assert len(calls) == before


@ray.remote(num_cpus=2)
class Holder:
    def here(self):
        """Answers when it has its CPUs."""


def test_the_executor_rests_while_its_output_waits(cluster, source, table, monkeypatch):
    looks = []
    look = ray_internals.ExecutorBackoff.on_execution_step

    def counted(self, executor):
        looks.append(executor)
        look(self, executor)

    monkeypatch.setattr(ray_internals.ExecutorBackoff, "on_execution_step", counted)
    stream = pipeline.batches(
        source, make_plan(table), AUGMENT, first_epoch=1, last_epoch=200, title="run:x"
    )
    next(stream)
    time.sleep(2)  # while the first outputs come in
    before = len(looks)
    time.sleep(2)
    assert 0 < len(looks) - before < 40  # each costs a millisecond of the interpreter lock
    stream.close()


def test_workers_of_one_job_share_each_step_without_overlap(source, table):
    whole = make_plan(table)
    orders = {
        "epoch": np.array([1]), "first": np.array([0]), "last": np.array([whole.steps])
    }  # fmt: skip
    alone = augment_steps(orders, source=source, plan=whole, augment=AUGMENT)
    shares = [
        augment_steps(
            orders, source=source, plan=make_plan(table, rank=rank, world=3), augment=AUGMENT
        )
        for rank in range(3)
    ]
    for step in range(whole.steps):
        expected = alone["image"][alone["step"] == step]
        got = np.empty_like(expected)
        for rank, share in enumerate(shares):
            got[rank::3] = share["image"][share["step"] == step]
        assert np.array_equal(got, expected)


def test_an_item_shown_twice_is_augmented_differently(source, table):
    plan = make_plan(table)
    drawn, pictures = by_a_plain_loop(source, plan, 1)
    twice = np.flatnonzero(drawn.draws_N == 1)
    assert len(twice), "the sampler must repeat something for this test to say anything"
    same = 0
    for place in twice:
        first = np.flatnonzero((drawn.items_N == drawn.items_N[place]) & (drawn.draws_N == 0))[0]
        same += np.array_equal(pictures[first], pictures[place])
    assert same < len(twice) / 2


def test_the_order_of_an_epoch_is_worked_out_once_a_process(table, monkeypatch):
    worked_out = []
    monkeypatch.setattr(sampling, "epoch", lambda labels, *, number, **_: worked_out.append(number))
    plan = make_plan(table)
    for number in (1, 1, 2, 1, 2):
        plan.epoch(number)
    assert worked_out == [1, 2]
    make_plan(table).epoch(1)
    assert worked_out == [1, 2, 1]
    for number in range(100):
        plan.epoch(number)
    assert len(_epochs) == EPOCHS_KEPT
