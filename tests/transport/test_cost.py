import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from hf_zoosel.transport import cosine_cost, euclidean_cost


def features(n, m, d, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(size, d, generator=generator, dtype=torch.float64) for size in (n, m))


def cosine_as_written(source, target):
    return np.array([[1 - s @ t / np.sqrt((s @ s) * (t @ t)) for t in target.numpy()] for s in source.numpy()])


def euclidean_as_written(source, target):
    return np.array([[np.sqrt(((s - t) ** 2).sum()) for t in target.numpy()] for s in source.numpy()])


sizes = (st.integers(1, 8), st.integers(1, 8), st.integers(1, 12), st.integers(0, 999))


@settings(max_examples=30)
@given(*sizes)
def test_both_equal_the_double_loop(n, m, d, seed):
    source, target = features(n, m, d, seed)
    assert cosine_cost(source, target).numpy() == pytest.approx(cosine_as_written(source, target), abs=1e-12)
    assert euclidean_cost(source, target).numpy() == pytest.approx(euclidean_as_written(source, target), abs=1e-12)


@settings(max_examples=30)
@given(*sizes, st.sampled_from([1e-200, 1e-9, 7.0, 1e200]))
def test_the_cosine_cost_ignores_the_length_of_every_row(n, m, d, seed, scale):
    source, target = features(n, m, d, seed)
    lengths = scale * torch.linspace(1, 3, n, dtype=torch.float64)[:, None]
    scaled = cosine_cost(lengths * source, scale * target)
    assert scaled.numpy() == pytest.approx(cosine_cost(source, target).numpy(), abs=1e-12)


@settings(max_examples=20)
@given(*sizes)
def test_the_cosine_cost_is_within_its_bounds_and_nothing_for_a_row_itself(n, m, d, seed):
    source, _ = features(n, m, d, seed)
    cost = cosine_cost(source, -source)
    assert 0 <= cost.min() <= cost.max() <= 2
    assert cosine_cost(source, source).diagonal().numpy() == pytest.approx(np.zeros(n), abs=1e-12)
    assert cost.diagonal().numpy() == pytest.approx(np.full(n, 2), abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_sums_are_in_float64_whatever_comes(dtype):
    source, target = (side.to(dtype) for side in features(5, 4, 300))
    for cost in (cosine_cost, euclidean_cost):
        assert cost(source, target).dtype == torch.float64
        assert torch.equal(cost(source, target), cost(source.double(), target.double()))


def test_the_input_is_left_alone():
    source, target = features(5, 4, 3)
    before = source.clone(), target.clone()
    cosine_cost(source, target)
    assert torch.equal(source, before[0])
    assert torch.equal(target, before[1])


@pytest.mark.parametrize("cost", [cosine_cost, euclidean_cost])
def test_bad_features_are_refused_with_the_remedy(cost):
    source, target = features(5, 4, 3)
    with pytest.raises(ValueError, match=r"`source` must have 2 columns as `target` has, got 3.*one model and layer"):
        cost(source, target[:, :2])
    with pytest.raises(ValueError, match="`target` must be 2-D"):
        cost(source, target[0])
    with pytest.raises(ValueError, match="`source` must have at least 1 row"):
        cost(source[:0], target)
    with pytest.raises(TypeError, match=r"`source` must be a floating-point torch tensor, got torch.int64"):
        cost(source.long(), target)
    source[3, 1] = float("nan")
    with pytest.raises(ValueError, match=r"`source` must be finite, got 1 of 5 rows.*the first is row 3.*no class is"):
        cost(source, target)


def test_a_row_without_length_has_no_cosine():
    source, target = features(5, 4, 3)
    target[2] = 0
    with pytest.raises(ValueError, match=r"`target` must have rows that are not all zero, got 1 of 4.*row 2"):
        cosine_cost(source, target)
    assert euclidean_cost(source, target)[:, 2].numpy() == pytest.approx(source.norm(dim=1).numpy())
