import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.special import digamma, loggamma, logsumexp

from hf_zoosel.metrics.pactran_probs import pactran_dirichlet, pactran_gamma
from tests.metrics.transcriptions.pactran import pactran_dirichlet_as_written, pactran_gamma_as_written

BOTH = pytest.mark.parametrize(
    ("metric", "as_written"),
    [(pactran_dirichlet, pactran_dirichlet_as_written), (pactran_gamma, pactran_gamma_as_written)],
    ids=["dirichlet", "gamma"],
)


def predictions(n, n_source, k, seed=0, sharpness=3.0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(k, (n,), generator=generator)
    labels[:k] = torch.arange(k)
    logits = sharpness * torch.randn(n, n_source, generator=generator, dtype=torch.float64)
    logits[torch.arange(n), labels % n_source] += sharpness
    return logits.softmax(1), labels


@BOTH
@settings(max_examples=30)
@given(
    case=st.tuples(st.integers(4, 30), st.integers(1, 8), st.integers(2, 4), st.integers(0, 999)),
    alpha=st.sampled_from([0.1, 1.0, 10.0]),
    steps=st.integers(1, 12),
)
def test_equals_the_bound_term_by_term(metric, as_written, case, alpha, steps):
    probs, labels = predictions(*case)
    expected = as_written(probs, labels, alpha, steps)
    assert metric(probs, labels, alpha=alpha, steps=steps) == pytest.approx(expected, rel=1e-9)


def test_the_authors_codes_give_the_same_at_convergence_but_for_sign_constants_and_the_division_by_classes():
    """google-research/pactran_metrics@2ea98d4, compute_metrics.py, less its 1e-10, after 2,000 steps."""
    probs, labels = predictions(25, 4, 3)
    s, onehot = probs.numpy(), torch.nn.functional.one_hot(labels).numpy().astype(float)
    prior = onehot.mean(axis=0)[:, None]
    for gamma in (False, True):
        q = s
        for _ in range(2000):
            a = prior + onehot.T @ q
            log_q = np.log(s) + onehot @ digamma(a) - (0 if gamma else digamma(a.sum(axis=0)))
            log_q -= logsumexp(log_q, axis=1, keepdims=True)
            q = np.exp(log_q)
        divergence = (q * (log_q - np.log(s))).sum()
        if gamma:
            lw = s @ a.sum(axis=0)
            theirs = ((loggamma(prior) - loggamma(a)).sum() + divergence + (np.log(lw) - 1).sum()) / onehot.size + 1
            ours = 1 - 1 / 3 - pactran_gamma(probs, labels, steps=2000) / 3
        else:
            log_c0 = loggamma(prior.sum()) - loggamma(prior).sum()
            log_c = loggamma(a.sum(axis=0)) - loggamma(a).sum(axis=0)
            theirs = -((log_c0 - log_c).sum() - divergence) / onehot.size
            ours = -pactran_dirichlet(probs, labels, steps=2000) / 3
        assert ours == pytest.approx(theirs, rel=1e-9)


@settings(max_examples=20)
@given(st.integers(0, 999))
def test_each_step_raises_the_dirichlet_bound(seed):
    probs, labels = predictions(20, 5, 3, seed)
    scores = [pactran_dirichlet(probs, labels, steps=steps) for steps in (1, 2, 5, 20, 100)]
    assert all(later >= earlier - 1e-12 for earlier, later in itertools.pairwise(scores))


def test_is_the_exact_evidence_where_the_source_class_is_certain():
    """Two source classes of two and three samples: products of Polya urns with prior (2/5, 3/5)."""
    probs, labels = torch.eye(2)[torch.tensor([0, 0, 1, 1, 1])], torch.tensor([0, 0, 0, 1, 1])
    a, b = 3 / 5, 2 / 5
    evidence = (a * (a + 1) / 2) * (a * b * (b + 1) / 6)
    assert pactran_dirichlet(probs, labels) == pytest.approx(np.log(evidence) / 5, rel=1e-6)


@BOTH
def test_ignores_order_and_class_names_and_is_negative(metric, as_written):
    probs, labels = predictions(30, 5, 3)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    other = metric(probs[order].flip(1), torch.tensor([9, -4, 1000])[labels[order]])
    assert other == pytest.approx(metric(probs, labels), rel=1e-10)
    assert other < 0


@BOTH
def test_source_classes_without_mass_change_the_dirichlet_not_at_all_and_give_no_nan(metric, as_written):
    probs, labels = predictions(20, 4, 2)
    padded = torch.cat([probs, torch.zeros(20, 3, dtype=torch.float64)], dim=1)
    assert metric(padded, labels) == pytest.approx(metric(probs, labels), rel=1e-12)


@BOTH
def test_options_out_of_range_are_refused(metric, as_written):
    case = predictions(20, 4, 2)
    with pytest.raises(ValueError, match="`alpha` must be positive, got 0"):
        metric(*case, alpha=0)
    with pytest.raises(ValueError, match="`steps` must be at least 1, got 0"):
        metric(*case, steps=0)
    with pytest.raises(ValueError, match=r"pass `logits.softmax"):
        metric(case[0] * 7, case[1])
