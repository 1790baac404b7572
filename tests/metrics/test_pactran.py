import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.optimize import minimize

from hf_zoosel.metrics import _softmax_head
from hf_zoosel.metrics.pactran import pactran, pactran_influence
from tests.metrics.transcriptions.pactran import head_as_written, log_softmax_as_written, pactran_as_written


def problem(n, d, k, signal=0.7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(k, (n,), generator=generator)
    labels[:k] = torch.arange(k)
    means = signal * torch.randn(k, d, generator=generator, dtype=torch.float64)
    return means[labels] + 1 + torch.randn(n, d, generator=generator, dtype=torch.float64), labels


@settings(max_examples=25)
@given(
    st.integers(4, 40),
    st.integers(1, 12),
    st.integers(2, 4),
    st.sampled_from([0.1, 1.0, 10.0]),
    st.booleans(),
    st.integers(0, 999),
)
def test_equals_the_bound_with_dense_derivatives(n, d, k, looseness, unit_variance, seed):
    features, labels = problem(n, d, k, seed=seed)
    options = {"looseness": looseness, "prior_variance": 10 * looseness, "unit_variance": unit_variance}
    expected = pactran_as_written(features, labels, **options)
    assert pactran(features, labels, **options) == pytest.approx(expected, rel=1e-9)


def test_the_authors_code_differs_by_the_sum_of_curvatures_over_samples_only():
    """google-research/pactran_metrics@d1dec1a, compute_metrics.py: h is summed over samples, not averaged."""
    features, labels = problem(30, 5, 3)
    x = (features - features.mean(0)).numpy()
    onehot = torch.nn.functional.one_hot(labels).numpy().astype(float)
    w, b = head_as_written(x, onehot, 1 / 30)
    p = np.exp(log_softmax_as_written(x, w, b))
    h = (x**2).T @ (p - p**2) + 1 / 30, (p - p**2).sum(axis=0)
    opt = -(onehot * np.log(p)).sum() / 30 + 0.5 * (w**2).sum() / 30
    theirs = opt + 0.5 * 15 / 30 * (10 / 5) * np.log((h[0].sum() + h[1].sum()) * 30 / 15)
    of_mean = opt + 0.5 * 15 / 30 * (10 / 5) * np.log(((h[0].sum() - 0.5 + h[1].sum()) / 30 + 0.5) * 30 / 15)
    assert pactran(features, labels, unit_variance=False) == pytest.approx(-of_mean, rel=1e-10)
    assert theirs > of_mean


@settings(max_examples=15)
@given(st.integers(4, 20), st.integers(1, 25), st.sampled_from([1e-20, 1e-4, 1e4, 1e20]), st.integers(0, 99))
def test_ignores_the_scale_of_the_features(n, d, scale, seed):
    features, labels = problem(n, d, 2, seed=seed)
    assert pactran(scale * features, labels) == pytest.approx(pactran(features, labels), rel=1e-9)


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e3, 1e9])
def test_stays_finite_at_any_scale_without_unit_variance(scale):
    features, labels = problem(20, 6, 3)
    assert math.isfinite(pactran(scale * features, labels, unit_variance=False))


@pytest.mark.parametrize("shape", [(40, 6), (10, 24)])
def test_ignores_rotation_shift_order_and_class_names(shape):
    features, labels = problem(*shape, k=3)
    generator = torch.Generator().manual_seed(1)
    rotation = torch.linalg.qr(torch.randn(shape[1], shape[1], generator=generator, dtype=torch.float64)).Q
    order = torch.randperm(len(labels), generator=generator)
    other = pactran((features @ rotation + 5)[order], torch.tensor([3, -9, 1000])[labels[order]])
    assert other == pytest.approx(pactran(features, labels), rel=1e-9)


def test_features_without_information_score_the_bound_of_the_class_shares():
    """The head says the shares: L = H(Y), W = 0, and tr(H) is that of b, or of white noise at large n."""
    labels = torch.tensor([0, 0, 0, 1])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    flat = 2 * 10 / (2 * 4) * math.log1p(4 * 2 * 0.75 * 0.25 / (2 * 3))
    assert pactran(torch.full((4, 3), 0.1), labels) == pytest.approx(-entropy - flat, rel=1e-10)


def test_perfectly_separable_features_have_a_finite_head():
    features = torch.nn.functional.one_hot(torch.arange(30) % 3).double()
    score, influence = pactran_influence(features, torch.arange(30) % 3)
    assert -2 < score < 0
    assert influence.std() < 1e-9  # the classes are alike


def test_better_separated_classes_score_higher():
    scores = [pactran(*problem(80, 10, 3, signal=signal)) for signal in (0.0, 0.5, 1.0, 2.0)]
    assert scores == sorted(scores)


def test_a_head_short_of_its_optimum_is_warned_about_and_scores_lower(monkeypatch):
    features, labels = problem(60, 10, 3)
    best = pactran(features, labels)
    monkeypatch.setattr(_softmax_head, "_NEWTON_STEPS", 1)
    with pytest.warns(RuntimeWarning, match="did not reach its optimum"):
        assert pactran(features, labels) < best


@pytest.mark.parametrize("i", [0, 7, 19])
def test_influence_is_the_derivative_in_the_weight_of_a_sample_with_the_head_held(i):
    """For a negligible prior variance only the loss and |W|^2 count, whose derivative the held head has exactly."""
    features, labels = problem(20, 3, 2)
    score, influence = pactran_influence(features, labels, prior_variance=1e-12)
    x = (features - features.mean(0)).numpy()
    x = x / np.sqrt((x**2).mean())
    onehot = torch.nn.functional.one_hot(labels).numpy().astype(float)

    def best(weights):
        w, b = head_as_written(x, onehot, 1 / 20)

        def loss(theta):
            log_p = log_softmax_as_written(x, theta[:6].reshape(3, 2), theta[6:])
            return -(weights[:, None] * onehot * log_p).sum() / 20 + 0.5 * (theta[:6] ** 2).sum() / 20

        return minimize(loss, np.concatenate([w.ravel(), b]), tol=1e-12).fun

    up, down = np.ones(20), np.ones(20)
    up[i], down[i] = 1.01, 0.99
    assert score == pytest.approx(-best(np.ones(20)), rel=1e-8)
    assert influence[i].item() == pytest.approx(20 * (best(down) - best(up)) / 0.02, rel=1e-3)


@pytest.mark.parametrize("option", ["looseness", "prior_variance"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_options_that_are_not_positive_are_refused(option, value):
    with pytest.raises(ValueError, match=rf"`{option}` must be positive, got {value}"):
        pactran(*problem(20, 4, 2), **{option: value})
