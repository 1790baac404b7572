import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from hf_zoosel.metrics import logme
from hf_zoosel.metrics.logme import logme_influence
from tests.metrics.transcriptions.logme import logme_as_written
from tests.metrics.transcriptions.logme_regression import best_precisions_as_written, evidence_as_written


def logme_by_the_papers_iteration(features, labels, steps=3000):
    """Algorithm 1 of arXiv:2102.11005, without its epsilons and run until it stands still."""
    f, y = features.double().numpy(), labels.numpy()
    (n, d), scores = f.shape, []
    for target in [(y == c).astype(float) for c in np.unique(y)]:
        alpha = beta = 1.0
        sigma = np.linalg.eigvalsh(f.T @ f)
        for _ in range(steps):
            a = alpha * np.eye(d) + beta * f.T @ f
            m = beta * np.linalg.solve(a, f.T @ target)
            gamma = (beta * sigma / (alpha + beta * sigma)).sum()
            alpha, beta = gamma / (m @ m), (n - gamma) / ((f @ m - target) ** 2).sum()
        _, log_det = np.linalg.slogdet(a)
        fit = beta * ((f @ m - target) ** 2).sum() + alpha * m @ m
        scores.append(0.5 * (n * np.log(beta) + d * np.log(alpha) - n * np.log(2 * np.pi) - fit - log_det) / n)
    return np.mean(scores)


def problem(n, d, k, signal=0.4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(k, (n,), generator=generator)
    labels[:k] = torch.arange(k)
    classes = signal * torch.randn(k, d, generator=generator, dtype=torch.float64)
    return classes[labels] + torch.randn(n, d, generator=generator, dtype=torch.float64), labels


@settings(max_examples=40)
@given(
    st.integers(6, 30), st.integers(1, 40), st.integers(2, 4), st.sampled_from([0.0, 0.4, 1.0]), st.integers(0, 999)
)
def test_equals_the_dense_gaussian_evidence_at_its_maximum(n, d, k, signal, seed):
    features, labels = problem(n, d, k, signal, seed)
    assert logme(features, labels) == pytest.approx(logme_as_written(features, labels), rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("shape", [(60, 8), (40, 40), (30, 55)])
def test_equals_the_dense_gaussian_evidence_to_the_last_digits_where_the_maximum_is_inside(shape):
    features, labels = problem(*shape, k=3, signal=0.1 if shape[0] > shape[1] else 0.03)
    features = features + 3  # a common mean, as after a ReLU
    assert logme(features, labels) == pytest.approx(logme_as_written(features, labels), rel=1e-10)


def test_equals_the_papers_iteration_run_to_convergence_for_more_samples_than_features():
    features, labels = problem(120, 10, k=3)
    assert logme(features, labels) == pytest.approx(logme_by_the_papers_iteration(features, labels), rel=1e-10)


def test_is_the_plain_evidence_for_fewer_samples_than_features():
    """The authors' fixed-point code returns 5.96 on such a problem: it lacks (D - k)/2 ln alpha."""
    features, labels = problem(60, 150, k=3, signal=0.1)
    assert logme(features, labels) == pytest.approx(logme_as_written(features, labels), rel=1e-10)
    assert logme(features, labels) < 0


def test_reaches_the_limit_where_interpolating_the_labels_is_most_probable():
    """For alpha / beta -> 0 and n <= d, ln p tends to n/2 ln(n / (2 pi y K^-1 y)) - n/2 - ln(det K) / 2, K = F F^T."""
    features, labels = problem(40, 200, k=3, signal=1.0)
    kernel = (features @ features.T).numpy()
    columns = torch.nn.functional.one_hot(labels).double().numpy()
    energies = (columns * np.linalg.solve(kernel, columns)).sum(axis=0)
    limits = 40 / 2 * np.log(40 / (2 * np.pi * energies)) - 40 / 2 - np.linalg.slogdet(kernel)[1] / 2
    assert logme(features, labels) == pytest.approx(limits.mean() / 40, rel=1e-10)


@pytest.mark.parametrize(("n", "d"), [(60, 30), (60, 120)])
def test_padding_with_noise_features_does_not_raise_it(n, d):
    generator = torch.Generator().manual_seed(1)
    features, labels = problem(n, d, k=3, signal=0.5)
    scores = [logme(features, labels)]
    for width in (2 * d, 8 * d):
        noise = torch.randn(n, width, generator=generator, dtype=torch.float64)
        scores.append(logme(torch.cat([features, noise], dim=1), labels))
    assert scores == sorted(scores, reverse=True)


@settings(max_examples=30)
@given(st.integers(5, 20), st.integers(1, 25), st.sampled_from([1e-20, 1e-4, 1e4, 1e20]), st.integers(0, 999))
def test_ignores_the_scale_of_the_features(n, d, scale, seed):
    features, labels = problem(n, d, k=2, seed=seed)
    assert logme(scale * features, labels) == pytest.approx(logme(features, labels), rel=1e-10, abs=1e-10)


def test_label_gaps_make_no_phantom_classes():
    features, labels = problem(40, 6, k=3)
    assert logme(features, torch.tensor([-5, 7, 1000])[labels]) == logme(features, labels)


def test_classes_do_not_leak_into_each_other():
    features, labels = problem(60, 8, k=3)
    alone = [logme_as_written(features, (labels == c).long()) for c in range(3)]  # both columns of c against rest
    rest = [logme_as_written(features, 1 - (labels == c).long()) for c in range(3)]
    assert alone == pytest.approx(rest)
    single = [logme(features, (labels == c).long()) for c in range(3)]
    assert single == pytest.approx(alone, rel=1e-10)


@pytest.mark.parametrize("copies", [1, 2])
def test_a_perfect_fit_scores_high_and_finite(copies):
    labels = torch.arange(12) % 3
    features = torch.nn.functional.one_hot(labels).double().repeat(1, copies)
    assert 5 < logme(features, labels) < 14


def test_features_of_zeros_score_as_labels_of_pure_noise():
    labels = torch.tensor([0, 0, 1, 1])
    assert logme(torch.zeros(4, 3), labels) == pytest.approx(-0.5 * np.log(2 * np.pi * 0.5) - 0.5, rel=1e-12)


@pytest.mark.parametrize(("n", "d", "signal"), [(40, 6, 0.5), (30, 30, 0.1), (24, 50, 0.3), (24, 500, 1.0)])
def test_influence_is_what_leaving_a_sample_out_takes_from_the_evidence(n, d, signal):
    features, labels = problem(n, d, k=3, signal=signal)
    score, influence = logme_influence(features, labels)
    assert score == pytest.approx(logme(features, labels), rel=1e-12)
    f, y = features.numpy(), labels.numpy()
    taken = np.zeros(n)
    for target in [(y == c).astype(float) for c in range(3)]:
        alpha, beta = best_precisions_as_written(target, f)
        whole = evidence_as_written(target, f, alpha, beta)
        taken += [
            (whole - evidence_as_written(np.delete(target, i), np.delete(f, i, axis=0), alpha, beta)) / 3
            for i in range(n)
        ]
    assert influence.numpy() == pytest.approx(taken, rel=1e-6, abs=1e-6)


def test_influence_predicts_the_spread_over_fresh_samples_on_both_sides_of_n_equals_d():
    for d in (16, 300):
        runs = [logme_influence(*problem_of_fixed_classes(d, seed)) for seed in range(40)]
        spread = np.std([score for score, _ in runs])
        predicted = np.mean([influence.std().item() / np.sqrt(len(influence)) for _, influence in runs])
        assert 0.6 * spread < predicted < 2 * spread


def problem_of_fixed_classes(d, seed):
    classes = 0.4 * torch.randn(4, d, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(100) % 4
    return classes[labels] + torch.randn(100, d, generator=torch.Generator().manual_seed(100 + seed)), labels
