"""What every entry of METRICS promises."""

import math
import sys

import pytest
import torch
from hypothesis import given, settings, strategies as st

from hf_zoosel.metrics import METRICS, _blocks

pytestmark = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)


def rows_for(metric, features):
    """What the metric asks for, made from features: themselves, or a softmax of them as a source head's output."""
    return features.softmax(dim=1) if metric.needs == ("source_probs",) else features


def problem(n=40, d=12, k=4, signal=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % k
    means = signal * torch.randn(k, d, generator=generator)
    return (means[labels] + torch.randn(n, d, generator=generator)).double(), labels


SHAPES = [(40, 12), (40, 40), (20, 90)]


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_returns_one_finite_float_the_same_each_time(metric, n, d):
    features, labels = problem(n, d)
    score = metric.fn(rows_for(metric, features), labels)
    assert isinstance(score, float)
    assert math.isfinite(score)
    assert metric.fn(rows_for(metric, features), labels) == score


@settings(max_examples=15)
@given(shape=st.sampled_from(SHAPES), random=st.randoms(use_true_random=False), half=st.booleans())
def test_ignores_sample_order_and_class_names(metric, shape, random, half):
    features, labels = problem(*shape, signal=0.3)
    if half:  # duplicates, and a class of one sample
        features = torch.cat([features, features[:5]])
        labels = torch.cat([labels, torch.tensor([0, 1, 2, 3, 9])])
    rows, order = rows_for(metric, features), random.sample(range(len(labels)), len(labels))
    renamed = (100 - 7 * labels[order]).to(torch.int16)
    score, influence = metric.influence(rows, labels)
    other_score, other_influence = metric.influence(rows[order], renamed)
    assert other_score == pytest.approx(score, rel=1e-9)
    assert other_influence.numpy() == pytest.approx(influence[order].numpy(), rel=1e-6, abs=1e-7)


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_informative_features_beat_shuffled_labels(metric, n, d):
    features, labels = problem(n, d)
    shuffled = labels[torch.randperm(n, generator=torch.Generator().manual_seed(0))]
    rows = rows_for(metric, features)
    assert metric.fn(rows, labels) > metric.fn(rows, shuffled)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_leaves_its_input_as_it_was(metric, dtype):
    features, labels = problem()
    rows = rows_for(metric, features).to(dtype)
    rows_before, labels_before = rows.clone(), labels.clone()
    metric.influence(rows, labels)
    metric.fn(rows, labels)
    assert torch.equal(rows, rows_before)
    assert torch.equal(labels, labels_before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_accepts_any_float_type_and_computes_in_float64(metric, dtype):
    features, labels = problem()
    rows = rows_for(metric, features).to(dtype)
    if metric.needs == ("source_probs",):  # rounded in float64, rows that sum to 1.002 are no probabilities
        assert metric.fn(rows, labels) == pytest.approx(metric.fn(rows_for(metric, features), labels), rel=1e-2)
    else:
        assert metric.fn(rows, labels) == metric.fn(rows.double(), labels)


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_blocks_of_rows_change_nothing(metric, monkeypatch, n, d):
    features, labels = problem(n, d, signal=0.3)
    score, influence = metric.influence(rows_for(metric, features), labels)
    monkeypatch.setattr(_blocks, "_BLOCK_ELEMENTS", 1)
    monkeypatch.setattr(_blocks, "_MIN_ROWS", 7)
    monkeypatch.setattr(sys.modules["hf_zoosel.metrics.knn"], "_STRIP_ELEMENTS", 3 * n)
    assert metric.fn(rows_for(metric, features), labels) == pytest.approx(score, rel=1e-11)
    blockwise_score, blockwise_influence = metric.influence(rows_for(metric, features), labels)
    assert blockwise_score == pytest.approx(score, rel=1e-11)
    assert blockwise_influence.numpy() == pytest.approx(influence.numpy(), rel=1e-7, abs=1e-9)


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_influence_comes_with_the_score_and_one_value_per_sample(metric, n, d):
    features, labels = problem(n, d, signal=0.3)
    score, influence = metric.influence(rows_for(metric, features), labels)
    assert score == pytest.approx(metric.fn(rows_for(metric, features), labels), rel=1e-12)
    assert influence.shape == (n,)
    assert influence.dtype == torch.float64
    assert influence.isfinite().all()
    assert influence.std() > 0


def test_every_sample_its_own_class_is_a_legal_task(metric):
    features, _ = problem(10, 6)
    assert math.isfinite(metric.fn(rows_for(metric, features), torch.arange(10)))


def test_two_samples_are_enough(metric):
    rows = rows_for(metric, torch.tensor([[1.0, 0.0], [0.0, 3.0]]))
    score, influence = metric.influence(rows, torch.tensor([8, -8]))
    assert math.isfinite(score)
    assert influence.isfinite().all()


def test_gradients_are_neither_needed_nor_kept(metric):
    features, labels = problem()
    rows = rows_for(metric, features).requires_grad_()
    score, influence = metric.influence(rows, labels)
    assert isinstance(score, float)
    assert not influence.requires_grad


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_rows_that_are_not_finite_are_counted_in_the_error(metric, bad):
    features, labels = problem()
    rows = rows_for(metric, features)
    rows[3, 2] = rows[3, 5] = rows[11, 0] = bad
    with pytest.raises(ValueError, match=r"must be finite, got 2 of 40 rows"):
        metric.fn(rows, labels)


@pytest.mark.parametrize("shape", [(40,), (40, 3, 4), (40, 0)])
def test_other_than_a_matrix_is_refused(metric, shape):
    with pytest.raises(ValueError, match=r"must be 2-D"):
        metric.fn(torch.rand(shape), torch.arange(40) % 2)


@pytest.mark.parametrize("rows", [torch.ones(4, 3, dtype=torch.int64), [[0.5, 0.5]] * 4])
def test_other_than_a_float_tensor_is_refused(metric, rows):
    with pytest.raises(TypeError, match=r"floating-point torch tensor"):
        metric.fn(rows, torch.tensor([0, 0, 1, 1]))


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (torch.zeros(40, dtype=torch.int64), ValueError, r"at least 2 classes, got only class \[0\]"),
        (torch.arange(39), ValueError, r"shape \(40,\), one per row"),
        (torch.rand(40), TypeError, r"integer class ids, got torch.float32"),
        ([0, 1] * 20, TypeError, r"integer class ids, got list"),
    ],
)
def test_labels_that_cannot_be_scored_are_refused(metric, labels, error, message):
    features, _ = problem()
    with pytest.raises(error, match=message):
        metric.fn(rows_for(metric, features), labels)


def test_no_samples_are_refused(metric):
    with pytest.raises(ValueError, match=r"at least 2 classes"):
        metric.fn(torch.empty(0, 5), torch.empty(0, dtype=torch.int64))


def test_boolean_labels_are_two_classes(metric):
    features, labels = problem(k=2)
    rows = rows_for(metric, features)
    assert metric.fn(rows, labels == 1) == metric.fn(rows, labels)
