"""What every entry of METRICS and VARIANTS promises."""

import math
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from hf_zoosel.metrics import METRICS, VARIANTS, _blocks
from hf_zoosel.metrics.registry import PER_ROW

TABLE = {name: metric for name, metric in {**METRICS, **VARIANTS}.items() if PER_ROW.intersection(metric.needs)}
LABELLED = {name: metric for name, metric in TABLE.items() if "labels" in metric.needs}
WITH_INFLUENCE = {name: metric for name, metric in TABLE.items() if metric.influence is not None}
STATIC = {name: metric for name, metric in METRICS.items() if metric.is_static}
OVER_ZOO = {name: metric for name, metric in METRICS.items() if metric.over_zoo is not None}

# Exceptions, by name; every other metric meets each test to the figures that stand there.
NEAR_SINGULAR = {
    "etran": 1e-6,  # duplicates with the ridge at its floor, 1e-10 of the variance: rounding counts 1e10 times
}
UNDEFINED = {
    "two samples": {"rsa"},  # one pair has no order
    # no row differs from another: no correlation (lfc, lgc, parc, rsa), no principal component (nleep)
    "constant": {"lfc", "lfc_centered", "lfc_cosine", "lgc", "lgc_logits", "lgc_random", "nleep", "parc", "rsa"},
}


def each(table):
    return pytest.mark.parametrize("metric", table.values(), ids=table)


def problem(n=40, d=12, k=4, signal=1.0, noise=0):
    means = signal * torch.randn(k, d, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(n) % k
    return (means[labels] + torch.randn(n, d, generator=torch.Generator().manual_seed(noise + 1))).double(), labels


def arguments(metric, features, labels):
    """All the metric asks for, made from features and labels; row by row, so that their order is the features'."""
    source, source_labels = problem(60, features.shape[1], noise=7)  # other samples of the same classes
    mixing = torch.randn(features.shape[1], 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    made = {
        "features": features,
        "source_logits": features,
        "source_probs": features.softmax(dim=1),
        "map_statistics": features[:, :2].clamp(0, 1),
        "labels": labels,
        "reference": features.double() @ mixing,
        "source_means": torch.stack([source[source_labels == c].mean(dim=0) for c in range(4)]),
        "source_counts": torch.full((4,), 300),
        "source_features": source,
        "source_labels": source_labels,
    }
    return [made.get(need, features) for need in metric.needs]


def value(metric, features, labels):
    """The score, or the terms of a zoo-relative metric, as a list of floats; degenerate inputs may warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        score = metric.fn(*arguments(metric, features, labels))
    return list(score) if isinstance(score, tuple) else [score]


def influence(metric, features, labels):
    """The influence of each sample, as an array; of none where the metric has no such form."""
    if metric.influence is None:
        return torch.zeros(0).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return metric.influence(*arguments(metric, features, labels))[1].numpy()


SHAPES = [(40, 12), (40, 40), (20, 90)]


@pytest.mark.parametrize(("n", "d"), SHAPES)
@each(TABLE)
def test_returns_finite_floats_the_same_each_time(metric, n, d):
    features, labels = problem(n, d)
    scores = value(metric, features, labels)
    assert all(isinstance(score, float) and math.isfinite(score) for score in scores)
    assert value(metric, features, labels) == scores


@settings(max_examples=15)
@given(shape=st.sampled_from(SHAPES), random=st.randoms(use_true_random=False), half=st.booleans())
@each(TABLE)
def test_ignores_sample_order_and_class_names(metric, shape, random, half):
    features, labels = problem(*shape, signal=0.3)
    if half:  # duplicates, and a class of one sample
        features = torch.cat([features, features[:5]])
        labels = torch.cat([labels, torch.tensor([0, 1, 2, 3, 9])])
    order = random.sample(range(len(labels)), len(labels))
    other = features[order], (100 - 7 * labels[order]).to(torch.int16)
    rounding = NEAR_SINGULAR.get(metric.name, 1e-9) if half else 1e-9
    assert value(metric, *other) == pytest.approx(value(metric, features, labels), rel=rounding)
    if metric.influence is not None:
        expected = influence(metric, features, labels)[order]
        assert influence(metric, *other) == pytest.approx(expected, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize(("n", "d"), SHAPES)
@each({name: metric for name, metric in LABELLED.items() if metric.over_zoo is None})
def test_informative_features_beat_shuffled_labels(metric, n, d):
    features, labels = problem(n, d)
    shuffled = labels[torch.randperm(n, generator=torch.Generator().manual_seed(0))]
    assert value(metric, features, labels) > value(metric, features, shuffled)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@each(TABLE)
def test_leaves_its_input_as_it_was(metric, dtype):
    features, labels = problem()
    given_to_it = arguments(metric, features.to(dtype), labels)
    before = [one.clone() for one in given_to_it]
    metric.fn(*given_to_it)
    if metric.influence is not None:
        metric.influence(*given_to_it)
    assert all(torch.equal(one, other) for one, other in zip(given_to_it, before, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@each(TABLE)
def test_accepts_any_float_type_and_computes_in_float64(metric, dtype):
    features, labels = problem()
    low = features.to(dtype)
    if "source_probs" in metric.needs:  # rounded in float64, rows that sum to 1.002 are no probabilities
        assert value(metric, low, labels) == pytest.approx(value(metric, features, labels), rel=1e-2)
    else:
        assert value(metric, low, labels) == value(metric, low.double(), labels)


@pytest.mark.parametrize(("n", "d"), SHAPES)
@each(TABLE)
def test_blocks_of_rows_change_nothing(metric, monkeypatch, n, d):
    features, labels = problem(n, d, signal=0.3)
    whole, influences = value(metric, features, labels), influence(metric, features, labels)
    monkeypatch.setattr(_blocks, "_BLOCK_ELEMENTS", 1)
    monkeypatch.setattr(_blocks, "_MIN_ROWS", 7)
    monkeypatch.setattr(sys.modules["hf_zoosel.metrics.knn"], "_STRIP_ELEMENTS", 3 * n)
    assert value(metric, features, labels) == pytest.approx(whole, rel=1e-11)
    assert influence(metric, features, labels) == pytest.approx(influences, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize(("n", "d"), SHAPES)
@each(WITH_INFLUENCE)
def test_influence_comes_with_the_score_and_one_value_per_sample(metric, n, d):
    features, labels = problem(n, d, signal=0.3)
    score, of_each = metric.influence(*arguments(metric, features, labels))
    assert [score] == pytest.approx(value(metric, features, labels), rel=1e-12)
    assert of_each.shape == (n,)
    assert of_each.dtype == torch.float64
    assert of_each.isfinite().all()
    assert of_each.std() > 0


@pytest.mark.parametrize("case", ["one sample a class", "two samples", "duplicates", "constant", "constant column"])
@each(TABLE)
def test_a_degenerate_task_gives_finite_numbers_unless_undefined(metric, case):
    features, labels = problem(10, 6)
    if case == "one sample a class":
        labels = torch.arange(10)
    elif case == "two samples":
        features, labels = features[:2], torch.tensor([8, -8])
    elif case == "duplicates":
        features, labels = features[[0, 1] * 5], labels[[0, 1] * 5]
    elif case == "constant":
        features = torch.ones_like(features)
    else:
        features[:, 2] = 0
    if metric.name in UNDEFINED.get(case, ()):
        with pytest.raises(ValueError, match=" must "):
            value(metric, features, labels)
    else:
        assert all(map(math.isfinite, value(metric, features, labels)))
        assert np.isfinite(influence(metric, features, labels)).all()


@each(TABLE)
def test_gradients_are_neither_needed_nor_kept(metric):
    features, labels = problem()
    assert all(isinstance(score, float) for score in value(metric, features.requires_grad_(), labels))
    if metric.influence is not None:
        assert not metric.influence(*arguments(metric, features, labels))[1].requires_grad


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@each(TABLE)
def test_rows_that_are_not_finite_are_counted_in_the_error(metric, bad):
    features, labels = problem()
    given_to_it = arguments(metric, features, labels)
    first = given_to_it[0].clone()
    first[3, 0] = first[3, 1] = first[11, 0] = bad
    with pytest.raises(ValueError, match=r"must be finite, got 2 of 40 rows"):
        metric.fn(first, *given_to_it[1:])


@pytest.mark.parametrize("shape", [(40,), (40, 3, 4), (40, 0)])
@each(TABLE)
def test_other_than_a_matrix_is_refused(metric, shape):
    features, labels = problem()
    with pytest.raises(ValueError, match=r"must be 2-D"):
        metric.fn(torch.rand(shape), *arguments(metric, features, labels)[1:])


@pytest.mark.parametrize("rows", [torch.ones(40, 3, dtype=torch.int64), [[0.5, 0.5]] * 40])
@each(TABLE)
def test_other_than_a_float_tensor_is_refused(metric, rows):
    features, labels = problem()
    with pytest.raises(TypeError, match=r"floating-point torch tensor"):
        metric.fn(rows, *arguments(metric, features, labels)[1:])


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (torch.zeros(40, dtype=torch.int64), ValueError, r"at least 2 classes, got only class \[0\]"),
        (torch.arange(39), ValueError, r"shape \(40,\), one per row"),
        (torch.rand(40), TypeError, r"integer class ids, got torch.float32"),
        ([0, 1] * 20, TypeError, r"integer class ids, got list"),
    ],
)
@each(LABELLED)
def test_labels_that_cannot_be_scored_are_refused(metric, labels, error, message):
    features, _ = problem()
    with pytest.raises(error, match=message):
        metric.fn(*arguments(metric, features, labels))


@each(LABELLED)
def test_no_samples_are_refused(metric):
    with pytest.raises(ValueError, match=r"at least 2 classes"):
        metric.fn(*arguments(metric, torch.empty(0, 5, dtype=torch.float64), torch.empty(0, dtype=torch.int64)))


@each(LABELLED)
def test_boolean_labels_are_two_classes(metric):
    features, labels = problem(k=2)
    assert value(metric, features, labels == 1) == value(metric, features, labels)


@each(STATIC)
def test_a_static_baseline_never_sees_the_target(metric):
    assert not PER_ROW.intersection(metric.needs)
    assert metric.influence is None
    assert metric.over_zoo is None


@pytest.mark.parametrize("m", [1, 2, 7])
@each(OVER_ZOO)
def test_a_zoo_relative_metric_scores_every_candidate_of_any_zoo_whatever_their_order(metric, m):
    terms = torch.randn(m, 3 if metric.name == "ncti" else 2, generator=torch.Generator().manual_seed(m)).double()
    order = torch.randperm(m, generator=torch.Generator().manual_seed(0))
    scores = metric.over_zoo(terms)
    assert scores.shape == (m,)
    assert scores.isfinite().all()
    torch.testing.assert_close(metric.over_zoo(terms[order]), scores[order])
    assert metric.over_zoo(terms[:1].expand(m, -1)).unique().numel() == 1
