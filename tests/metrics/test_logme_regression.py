import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.nn.functional import one_hot

from hf_zoosel.metrics.logme import logme, logme_influence
from hf_zoosel.metrics.logme_regression import logme_regression, logme_regression_influence
from tests.metrics.transcriptions.logme_regression import (
    best_precisions_as_written,
    evidence_as_written,
    logme_regression_as_written,
)


def problem(n, d, t, noise=0.5, seed=0, offset=0.0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, d, generator=generator, dtype=torch.float64)
    weights = torch.randn(d, t, generator=generator, dtype=torch.float64) / d**0.5
    return features, offset + features @ weights + noise * torch.randn(n, t, generator=generator, dtype=torch.float64)


@settings(max_examples=20)
@given(
    shape=st.tuples(st.integers(6, 30), st.integers(1, 40), st.integers(1, 3)),
    noise=st.sampled_from([0.3, 3.0]),
    offset=st.sampled_from([0.0, 5.0]),
    seed=st.integers(0, 999),
)
def test_equals_the_dense_gaussian_evidence_at_its_maximum(shape, noise, offset, seed):
    case = problem(*shape, noise, seed, offset)
    assert logme_regression(*case) == pytest.approx(logme_regression_as_written(*case), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("n", "d"), [(60, 8), (40, 40), (24, 50)])
def test_one_hot_targets_give_logme_itself(n, d):
    features, _ = problem(n, d, 1)
    labels = torch.arange(n) % 3
    targets = one_hot(labels).double()
    score, influence = logme_regression_influence(features, targets)
    expected_score, expected_influence = logme_influence(features, labels)
    assert logme_regression(features, targets) == pytest.approx(logme(features, labels), rel=1e-12)
    assert score == pytest.approx(expected_score, rel=1e-12)
    assert influence.numpy() == pytest.approx(expected_influence.numpy(), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("n", "d"), [(50, 12), (20, 45)])
def test_targets_do_not_leak_into_each_other(n, d):
    features, targets = problem(n, d, 3)
    targets = targets * torch.tensor([1.0, 30.0, 0.01])
    alone = [logme_regression(features, targets[:, i]) for i in range(3)]
    assert logme_regression(features, targets) == pytest.approx(np.mean(alone), rel=1e-12)
    assert logme_regression(features, targets[:, [2, 0, 1]]) == pytest.approx(np.mean(alone), rel=1e-12)
    assert logme_regression(features, targets[:, :1]) == alone[0]


@pytest.mark.parametrize(("n", "d"), [(50, 12), (20, 45)])
@pytest.mark.parametrize("scale", [1e-20, 1e-4, 1e4, 1e20])
def test_ignores_the_scale_of_the_features_and_shifts_by_the_log_of_that_of_the_targets(n, d, scale):
    features, targets = problem(n, d, 2)
    score = logme_regression(features, targets)
    assert logme_regression(scale * features, targets) == pytest.approx(score, rel=1e-9)
    assert logme_regression(features, scale * targets) == pytest.approx(score - math.log(scale), rel=1e-9)


def test_padding_with_noise_features_does_not_raise_it():
    generator = torch.Generator().manual_seed(1)
    features, targets = problem(60, 20, 2)
    scores = [logme_regression(features, targets)]
    for width in (40, 300):
        noise = torch.randn(60, width, generator=generator, dtype=torch.float64)
        scores.append(logme_regression(torch.cat([features, noise], dim=1), targets))
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(("n", "d"), [(50, 12), (30, 60)])
def test_informative_features_beat_shuffled_targets(n, d):
    features, targets = problem(n, d, 2, noise=0.1)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    assert logme_regression(features, targets) > logme_regression(features, targets[order])
    together = logme_regression(features[order], targets[order])
    assert together == pytest.approx(logme_regression(features, targets), rel=1e-9)


def test_the_mean_of_the_targets_must_be_explained_too():
    features, targets = problem(50, 6, 1)
    assert logme_regression(features, targets + 100) < logme_regression(features, targets) - 1
    with_constant = torch.cat([features, torch.ones(50, 1)], dim=1)
    assert logme_regression(with_constant, targets + 100) > logme_regression(features, targets + 100) + 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_accepts_any_float_type_and_leaves_its_input_as_it_was(dtype):
    features, targets = (tensor.to(dtype) for tensor in problem(40, 12, 2))
    before = features.clone(), targets.clone()
    score = logme_regression(features, targets)
    assert score == logme_regression(features.double(), targets.double())
    assert torch.equal(features, before[0])
    assert torch.equal(targets, before[1])


def test_a_perfect_fit_scores_high_and_finite():
    features, _ = problem(30, 4, 1)
    assert 5 < logme_regression(features, features[:, 0] / features[:, 0].norm()) < 20


@pytest.mark.parametrize("shape", [(12, 3), (6, 40)])
def test_features_of_zeros_score_as_targets_of_pure_noise(shape):
    targets = torch.linspace(-1, 2, shape[0], dtype=torch.float64)
    expected = -0.5 * math.log(2 * math.pi * targets.square().mean().item()) - 0.5
    score, influence = logme_regression_influence(torch.zeros(shape), targets)
    assert score == pytest.approx(expected, rel=1e-12)
    assert influence.isfinite().all()


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        (torch.arange(12), TypeError, r"floating-point torch tensor, got torch.int64. For classes take `logme`"),
        ([0.5] * 12, TypeError, r"floating-point torch tensor, got list"),
        (torch.rand(11), ValueError, r"shape \(12,\) or \(12, n_targets\).*got \(11,\)"),
        (torch.rand(12, 2, 2), ValueError, r"got \(12, 2, 2\)"),
        (torch.rand(12, 0), ValueError, r"`targets` must be 2-D"),
        (torch.tensor(1.0), ValueError, r"got \(\)"),
        (torch.full((12,), math.nan), ValueError, r"`targets` must be finite, got 12 of 12 rows"),
        (torch.eye(12, 13), ValueError, r"no column of zeros only, got 1: their evidence has no bound. Drop them"),
    ],
)
def test_targets_that_cannot_be_scored_are_refused(targets, error, message):
    with pytest.raises(error, match=message):
        logme_regression(torch.rand(12, 3), targets)


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match=r"at least one, got \(0,\)"):
        logme_regression(torch.empty(0, 5), torch.empty(0))


@pytest.mark.parametrize(("n", "d"), [(40, 6), (30, 30), (24, 50)])
def test_influence_is_what_leaving_a_sample_out_takes_from_the_evidence(n, d):
    features, targets = problem(n, d, 2)
    score, influence = logme_regression_influence(features, targets)
    assert score == pytest.approx(logme_regression(features, targets), rel=1e-12)
    f, taken = features.numpy(), np.zeros(n)
    for y in targets.numpy().T:
        alpha, beta = best_precisions_as_written(y, f)
        whole = evidence_as_written(y, f, alpha, beta)
        taken += [
            (whole - evidence_as_written(np.delete(y, i), np.delete(f, i, axis=0), alpha, beta)) / 2 for i in range(n)
        ]
    assert influence.numpy() == pytest.approx(taken, rel=1e-6, abs=1e-6)
