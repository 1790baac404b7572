import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from hf_zoosel.metrics.etran import etran_over_zoo, etran_terms
from tests.metrics.transcriptions.etran import etran_over_zoo_as_written, etran_terms_as_written


def problem(n, d, k, scale=0.3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(k, (n,), generator=generator)
    labels[:k] = torch.arange(k)
    classes = torch.randn(k, d, generator=generator, dtype=torch.float64)
    features = scale * (2 + classes[labels] + torch.randn(n, d, generator=generator, dtype=torch.float64))
    return features, 4 * torch.randn(n, 7, generator=generator, dtype=torch.float64), labels


@settings(max_examples=40)
@given(
    st.integers(6, 24),
    st.integers(1, 30),
    st.integers(2, 4),
    st.sampled_from([0.02, 0.1, 3.0]),
    st.sampled_from([0.005, 0.25, 1.0]),
    st.booleans(),
    st.integers(0, 999),
)
def test_terms_equal_the_formulas_of_the_paper(n, d, k, scale, lowest, held_out, seed):
    task = problem(n, d, k, scale, seed)
    expected = etran_terms_as_written(*task, lowest=lowest, held_out=held_out)
    assert etran_terms(*task, lowest=lowest, held_out=held_out) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_the_classification_score_is_that_of_scikit_learn():
    analysis = pytest.importorskip("sklearn.discriminant_analysis")
    features, logits, labels = problem(120, 6, 4)
    x, y = features.numpy(), labels.numpy()
    within = np.mean([np.outer(r, r) for r in [x[i] - x[y == y[i]].mean(axis=0) for i in range(len(y))]], axis=0)
    shrinkage = np.exp(-5 * np.linalg.eigvalsh(within)[-1])
    model = analysis.LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(x, y)
    expected = model.predict_proba(x)[np.arange(len(y)), y].mean()
    assert etran_terms(features, logits, labels, held_out=False)[0] == pytest.approx(expected, rel=1e-9)


def test_distances_are_measured_within_classes_and_not_in_plain_units():
    """The authors' code takes eigh of a matrix that is not symmetric, whose vectors are orthonormal in plain units."""
    features, logits, labels = problem(80, 4, 3, scale=20.0)  # the floor of the shrinkage, which scales cannot move
    stretched = features * torch.tensor([1.0, 30.0, 900.0, 1.0], dtype=torch.float64)
    assert etran_terms(stretched, logits, labels)[0] == pytest.approx(
        etran_terms(features, logits, labels)[0], rel=1e-5
    )


def test_the_classification_score_does_not_saturate_with_no_more_samples_than_features():
    weak, strong = problem(40, 90, 3), problem(40, 90, 3)
    shuffled = weak[2][torch.randperm(40, generator=torch.Generator().manual_seed(1))]
    low, high = etran_terms(weak[0], weak[1], shuffled)[0], etran_terms(*strong)[0]
    assert low < 0.6 < high
    assert etran_terms(weak[0], weak[1], shuffled, held_out=False)[0] > 0.999


@pytest.mark.parametrize(("n", "lowest", "count"), [(8, 0.005, 1), (400, 0.005, 2), (600, 0.005, 3), (10, 1.0, 10)])
def test_the_energy_is_that_of_the_fewest_samples_and_of_one_at_least(n, lowest, count):
    """The authors' code takes the mean of none below 200 samples, which is NaN."""
    features, _, labels = problem(n, 3, 2)
    logits = torch.arange(n, dtype=torch.float64).flip(0)[:, None]
    assert etran_terms(features, logits, labels, lowest=lowest)[1] == pytest.approx((count - 1) / 2)


def test_large_logits_do_not_overflow():
    features, logits, labels = problem(20, 3, 2)
    assert etran_terms(features, logits.float() + 1e4, labels)[1] == pytest.approx(
        1e4 + etran_terms(features, logits, labels)[1], rel=1e-6
    )


@pytest.mark.parametrize("lowest", [0.0, -0.1, 1.01])
def test_a_fraction_out_of_range_is_refused(lowest):
    with pytest.raises(ValueError, match=r"`lowest` must be in \(0, 1\], got"):
        etran_terms(*problem(10, 3, 2), lowest=lowest)


def test_logits_of_other_samples_are_refused():
    features, logits, labels = problem(10, 3, 2)
    with pytest.raises(ValueError, match=r"`source_logits` must have 10 rows.*got 9"):
        etran_terms(features, logits[:9], labels)
    logits[4, 0] = math.inf
    with pytest.raises(ValueError, match=r"`source_logits` must be finite, got 1 of 10"):
        etran_terms(features, logits, labels)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(-50, 50)), min_size=2, max_size=8))
def test_the_zoo_equals_the_formula_of_the_paper(terms):
    spans = np.ptp(np.array(terms), axis=0)
    if spans.min() > 1e-6:
        scores = etran_over_zoo(torch.tensor(terms, dtype=torch.float64))
        assert scores.tolist() == pytest.approx(etran_over_zoo_as_written(terms), rel=1e-9, abs=1e-12)
        assert scores.min() >= 0
        assert scores.max() <= 1 + 1e-12


def test_a_score_depends_on_the_other_candidates():
    terms = torch.tensor([[0.50, 9.0], [0.51, 1.0], [0.60, 1.5]])
    assert etran_over_zoo(terms[:2]).argmax() == 1
    wider = etran_over_zoo(terms)
    assert wider[0] > wider[1]


@pytest.mark.parametrize("terms", [[[0.7, 3.0]], [[0.7, 3.0]] * 4, [[0.7, 3.0], [0.7 + 1e-16, 3.0 - 1e-15]]])
def test_candidates_that_are_alone_or_equal_score_zero(terms):
    assert etran_over_zoo(torch.tensor(terms, dtype=torch.float64)).tolist() == [0.0] * len(terms)


def test_a_term_that_is_equal_for_all_adds_nothing():
    assert etran_over_zoo(torch.tensor([[1.0, 2.0], [1.0, 4.0]])).tolist() == [0.0, 0.15]


@pytest.mark.parametrize("shape", [(3, 3), (0, 2)])
def test_terms_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"`terms` must have shape \(n_candidates, 2\)"):
        etran_over_zoo(torch.ones(shape))


def test_terms_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match=r"`terms` must be finite, got 1 of 2 rows"):
        etran_over_zoo(torch.tensor([[1.0, math.nan], [0.0, 1.0]]))
