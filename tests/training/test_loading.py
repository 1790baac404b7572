import multiprocessing
import os
import pickle
import random

import numpy as np
import pytest
import torch

from hf_zoosel.training.augment import Augmentation, make_views
from hf_zoosel.training.loading import EvaluationBatches, MixedBatches, Workers
from hf_zoosel.training.plan import SourcePlan, TargetPlan
from hf_zoosel.training.reading import LoadingError, Stream
from hf_zoosel.training.source_stream import open_source
from hf_zoosel.training.streams import open_held_out, open_target
from tests.training.pictures import pictures, small_preprocess

VIEWS = make_views(small_preprocess(8), Augmentation(auto_augment="rand-m9-mstd0.5", erase=0.3))
LABELS = list("abcabcabcabc")


def target_stream(broken=(), view=VIEWS.train, batch_size=4):
    rows = open_target(pictures(LABELS, broken=broken))
    return Stream(rows, TargetPlan(len(rows), batch_size, 3), view)


def source_stream(broken=(), batch_size=6, labelled=None, weights=None):
    rows = open_source(pictures(list("xyxyxyx"), offset=50, broken=broken), labelled=labelled)
    return Stream(rows, SourcePlan(len(rows), batch_size, 3, weights), VIEWS.train, VIEWS.strong)


def batches(target=None, source=None, steps=range(6), seed=5, **more):
    with MixedBatches(target or target_stream(), source, seed=seed, steps=steps, **more) as made:
        return list(made)


def assert_same(some, others):
    assert len(some) == len(others)
    for a, b in zip(some, others, strict=True):
        assert (a.step, a.n_target, a.unreadable) == (b.step, b.n_target, b.unreadable)
        assert torch.equal(a.pixels, b.pixels)
        assert torch.equal(a.labels, b.labels)
        assert (a.strong is None) == (b.strong is None)
        assert a.strong is None or torch.equal(a.strong, b.strong)


def test_a_batch_holds_target_rows_then_source_rows_and_a_strong_view():
    target, source = target_stream(), source_stream()
    for batch in batches(target, source):
        assert batch.pixels.shape == (10, 8, 8, 3)
        assert batch.pixels.dtype == torch.uint8
        assert batch.strong.shape == (6, 8, 8, 3)
        assert not torch.equal(batch.strong, batch.pixels[4:])
        assert batch.n_target == 4
        assert batch.labels[:4].tolist() == target.rows.labels[target.plan.rows(batch.step)].tolist()
        assert batch.labels[4:].tolist() == source.rows.labels[source.plan.rows(batch.step)].tolist()


def test_an_unlabelled_source_has_label_minus_one():
    (batch,) = batches(source=source_stream(labelled=False), steps=range(1))
    assert batch.labels[4:].tolist() == [-1] * 6


def test_workers_change_nothing():
    source = source_stream(broken=[2])
    alone = batches(target_stream(broken=[1, 5]), source, workers=Workers(0))
    shared = batches(target_stream(broken=[1, 5]), source, workers=Workers(2))
    assert_same(alone, shared)
    assert any(batch.unreadable for batch in alone)


def test_starting_in_the_middle_gives_the_same_batches():
    whole = batches(source=source_stream())
    assert_same(whole[4:], batches(source=source_stream(), steps=range(4, 6)))


def test_processes_share_each_batch():
    whole = batches(source=source_stream())
    parts = [batches(source=source_stream(), rank=rank, size=2) for rank in range(2)]
    for one, first, second in zip(whole, *parts, strict=True):
        target = [first.pixels[:2], second.pixels[:2]]
        assert torch.equal(one.pixels, torch.cat([*target, first.pixels[2:], second.pixels[2:]]))
        assert torch.equal(one.strong, torch.cat([first.strong, second.strong]))
        assert torch.equal(one.labels[:4], torch.cat([first.labels[:2], second.labels[:2]]))


def test_an_uneven_share_is_refused_before_training():
    with pytest.raises(ValueError, match="divisible by the 3 processes"):
        MixedBatches(target_stream(), seed=0, steps=range(3), rank=0, size=3)


def test_every_image_of_every_step_has_random_numbers_of_its_own():
    rows = open_target(pictures(["a", "b"])).take(np.zeros(4, dtype=int))  # one image over and over
    stream = Stream(rows, TargetPlan(4, 4, 0), VIEWS.train)
    seen = [pixels.numpy().tobytes() for batch in batches(stream, steps=range(4)) for pixels in batch.pixels]
    assert len(set(seen)) == len(seen)
    others = [pixels.numpy().tobytes() for pixels in batches(stream, steps=range(1), seed=6)[0].pixels]
    assert not set(seen) & set(others)


def test_global_random_state_is_left_alone():
    torch.manual_seed(7)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    batches(source=source_stream(), workers=Workers(0))
    list(EvaluationBatches(target_stream().rows, VIEWS.evaluation, 4))
    batches(steps=range(2), workers=Workers(1))
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


def test_a_row_that_cannot_be_read_gives_way_to_the_next_and_is_reported():
    broken = target_stream(broken=[3, 4], view=VIEWS.evaluation)
    whole = target_stream(view=VIEWS.evaluation)
    reported = {}
    for batch in batches(broken, steps=range(3)):
        rows = [5 if row in (3, 4) else row for row in broken.plan.rows(batch.step).tolist()]
        assert batch.labels.tolist() == whole.rows.labels[rows].tolist()
        expected = [VIEWS.evaluation(one.decode()) for one in whole.rows.images.encoded(rows)]
        assert np.array_equal(batch.pixels.numpy(), np.stack(expected))
        reported |= batch.unreadable
    assert reported == dict.fromkeys(["target row 3", "target row 4"], reported["target row 3"])
    assert "unknown image format" in reported["target row 3"]


def test_a_row_of_weight_zero_stands_in_for_none():
    weights = np.array([1.0, 0, 0, 1.0, 0, 0, 0])
    rows = open_source(pictures(list("xyxyxyx"), broken=[0]))
    rows = type(rows)(**{**vars(rows), "weights": weights})
    stream = Stream(rows, SourcePlan(7, 6, 0, weights), VIEWS.evaluation)
    (batch,) = batches(source=stream, steps=range(1))
    alone = VIEWS.evaluation(rows.images.encoded([3])[0].decode())
    assert all(np.array_equal(pixels, alone) for pixels in batch.pixels[4:].numpy())


@pytest.mark.parametrize("count", [0, 1])
def test_a_stream_without_a_readable_image_is_an_error(count):
    with pytest.raises(LoadingError, match=r"got none among the 12 rows .* unknown image format"):
        batches(target_stream(broken=range(12)), workers=Workers(count))


def failing(image):
    raise KeyError("no such pixel")


@pytest.mark.parametrize("count", [0, 1])
def test_a_view_that_fails_is_an_error_with_its_traceback(count):
    with pytest.raises(LoadingError, match="KeyError: 'no such pixel'") as caught:
        batches(target_stream(view=failing), workers=Workers(count))
    assert "in failing" in caught.value.__notes__[0]


def dying(image):
    os._exit(3)


def test_a_worker_that_dies_is_an_error_with_the_remedy():
    with pytest.raises(LoadingError, match=r"A worker that loads images died: .* smaller `num_workers`"):
        batches(target_stream(view=dying), workers=Workers(1))


def test_images_that_come_out_unlike_are_an_error():
    with pytest.raises(LoadingError, match=r"one size, got pixels of"):
        batches(target_stream(view=lambda image: np.zeros(random.choice([(2, 2, 3), (3, 3, 3)]), np.uint8)))


def test_workers_end_with_the_block():
    with MixedBatches(target_stream(), seed=0, steps=range(100), workers=Workers(2)) as made:
        next(made)
        assert len(multiprocessing.active_children()) == 2
    assert multiprocessing.active_children() == []


def test_waiting_is_measured():
    made = MixedBatches(target_stream(), seed=0, steps=range(3))
    assert made.waited == 0
    assert next(made).step == 0
    waited = made.waited
    assert 0 < waited < 60
    assert len(list(made)) == 2
    assert made.waited > waited


def test_what_workers_are_given_survives_pickle():
    stream = source_stream(broken=[1])
    again = pickle.loads(pickle.dumps(stream))
    assert_same(batches(source=stream), batches(source=again))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_evaluation_sees_every_readable_row_once_in_order(size):
    rows = open_held_out(pictures(LABELS[:11], broken=[0, 7]), ("a", "b", "c"))
    whole = open_held_out(pictures(LABELS[:11]), ("a", "b", "c"))
    shares = [list(EvaluationBatches(rows, VIEWS.evaluation, 3, rank=rank, size=size)) for rank in range(size)]
    made = [batch for share in shares for batch in share]
    seen = torch.cat([batch.rows for batch in made]).tolist()
    assert seen == [1, 2, 3, 4, 5, 6, 8, 9, 10]
    assert torch.cat([batch.labels for batch in made]).tolist() == rows.labels[seen].tolist()
    expected = np.stack([VIEWS.evaluation(one.decode()) for one in whole.images.encoded(seen)])
    assert np.array_equal(torch.cat([batch.pixels for batch in made]).numpy(), expected)
    assert sorted(row for batch in made for row in batch.unreadable) == [0, 7]


def test_evaluation_can_be_repeated_and_workers_change_nothing():
    rows = target_stream(broken=[4, 5]).rows
    alone, shared = (EvaluationBatches(rows, VIEWS.evaluation, 2, workers=Workers(n)) for n in (0, 1))
    runs = [list(one) for one in (alone, shared, shared)]
    assert [len(batch.rows) for batch in runs[0]] == [2, 2, 0, 2, 2, 2]
    for run in runs[1:]:
        for a, b in zip(runs[0], run, strict=True):
            assert a.unreadable == b.unreadable
            assert all(torch.equal(x, y) for x, y in zip(a[:3], b[:3], strict=True))


def test_workers_are_chosen_by_the_work_and_the_cores():
    assert Workers().for_images(10, None) == 0
    assert Workers(pin=True, processes=64).for_images(10_000, None) == 1
    assert 1 <= Workers(pin=True).for_images(10_000, None) <= 16
    assert Workers(processes=64).for_images(10_000, None) == 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert Workers().for_images(10_000, None) == min(4, cores - 1)
        torch.set_num_threads(cores)
        assert Workers().for_images(10_000, None) == 0
    finally:
        torch.set_num_threads(threads)
    assert Workers(3).for_images(10, None) == 3
    with pytest.raises(ValueError, match="`num_workers` must be at least 0, got -1"):
        Workers(-1).for_images(10, None)
