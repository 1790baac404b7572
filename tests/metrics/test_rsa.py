import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.stats import rankdata, spearmanr

from hf_zoosel.metrics import _blocks, _pairs
from hf_zoosel.metrics._pairs import pair_ranks, pair_rows
from hf_zoosel.metrics.rsa import RankedReference, rank_reference, rsa, rsa_influence
from tests.metrics.transcriptions.rsa import dissimilarities, rsa_as_written


def made(n, d, seed=0, offset=0.0):
    return offset + torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@st.composite
def sides(draw):
    """Features and reference, at times of few values so that many pairs are equal, at times with duplicates."""
    n, seed = draw(st.integers(4, 12)), draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)
    both = []
    for d in (draw(st.integers(3, 20)), draw(st.integers(3, 8))):
        side = draw(st.sampled_from([0.0, 10.0])) + torch.randn(n, d, dtype=torch.float64, generator=generator)
        if draw(st.booleans()):
            side = torch.randint(3, (n, d), generator=generator).double()
            side[:2, :3] = torch.tensor([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]])  # not all rows alike
        both.append(torch.cat([side, side[: draw(st.integers(0, 2))]])[:n])
    return tuple(both)


@settings(max_examples=40)
@given(sides())
def test_equals_the_formula_of_the_paper(problem):
    assert rsa(*problem) == pytest.approx(rsa_as_written(*problem), rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("shape", [(60, 12), (40, 200)])
def test_equals_scipy_on_the_two_matrices(shape):
    features, reference = made(*shape, seed=0), made(shape[0], 9, seed=1)
    above = np.triu_indices(len(features), 1)
    expected = spearmanr((1 - np.corrcoef(features))[above], (1 - np.corrcoef(reference))[above]).statistic
    assert rsa(features, reference) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("bucket_pairs", [7, 40, 10**6])
@pytest.mark.parametrize("spread", [1, 3, 50, 10**9])
def test_ranks_equal_those_of_scipy_however_the_buckets_cut_ties(monkeypatch, bucket_pairs, spread):
    monkeypatch.setattr(_pairs, "_BUCKET_PAIRS", bucket_pairs)
    values = np.random.default_rng(0).integers(spread, size=500) / spread - 2
    noisy = values + np.random.default_rng(1).uniform(-1e-15, 1e-15, size=500)  # rounding must not split ties
    _pairs._rank_in_place(noisy)
    assert noisy.tolist() == rankdata(values).tolist()


@pytest.mark.parametrize("shape", [(3, 2), (30, 5), (12, 50)])
def test_pairs_stand_row_after_row_whatever_the_blocks(monkeypatch, shape):
    features = made(*shape)
    expected = rankdata(dissimilarities(features).round(12))
    assert pair_ranks(features).tolist() == expected.tolist()
    monkeypatch.setattr(_blocks, "_BLOCK_ELEMENTS", 1)
    monkeypatch.setattr(_blocks, "_MIN_ROWS", 4)
    assert pair_ranks(features).tolist() == expected.tolist()
    places = [(i, j) for i, pairs in pair_rows(shape[0]) for j in range(i + 1, i + 1 + pairs.stop - pairs.start)]
    assert places == list(zip(*np.triu_indices(shape[0], 1), strict=True))


def test_reference_is_ranked_once_for_all_models():
    reference = made(20, 6, seed=9)
    ranked = rank_reference(reference)
    assert isinstance(ranked, RankedReference)
    assert ranked.doubled_ranks.dtype == torch.int32
    for seed in range(3):
        features = made(20, 15, seed)
        assert rsa(features, ranked) == rsa(features, reference)


@settings(max_examples=30)
@given(sides())
def test_lies_between_minus_one_and_one_and_is_symmetric(problem):
    features, reference = problem
    assert abs(rsa(features, reference)) <= 1
    assert rsa(features, reference) == pytest.approx(rsa(reference, features), rel=1e-12, abs=1e-14)
    assert rsa(features, features) == pytest.approx(1, rel=1e-14)


@settings(max_examples=30)
@given(sides(), st.floats(-100, 100), st.sampled_from([1e-8, 0.1, 1e6]), st.randoms(use_true_random=False))
def test_ignores_scale_offset_and_order(problem, offset, scale, random):
    features, reference = problem
    order = random.sample(range(len(features)), len(features))
    changed = rsa(scale * features[order] + scale * round(offset), reference[order])
    assert changed == pytest.approx(rsa(features, reference), rel=1e-10, abs=1e-12)


def test_duplicate_samples_tie_exactly():
    features = made(30, 700)
    features = torch.cat([features, features[:10]])
    ranks = pair_ranks(features)
    matrix = np.zeros((40, 40))
    matrix[np.triu_indices(40, 1)] = ranks
    matrix += matrix.T
    assert matrix[:10, 10:30].tolist() == matrix[30:, 10:30].tolist()
    assert {matrix[i, i + 30] for i in range(10)} == {5.5}  # ten dissimilarities of zero


def test_a_row_without_variance_correlates_with_none():
    features = made(8, 6)
    features[3] = 0.1
    ranks = pair_ranks(features)
    assert ranks.tolist() == rankdata(dissimilarities(features).round(12)).tolist()
    assert (
        len(
            {rank for rank, (i, j) in zip(ranks, zip(*np.triu_indices(8, 1), strict=True), strict=True) if 3 in (i, j)}
        )
        == 1
    )


@settings(max_examples=12)
@given(sides())
def test_influence_is_the_derivative_in_the_weight_of_a_sample_with_ranks_held(problem):
    score, influence = rsa_influence(*problem)
    n = len(influence)
    assert influence.sum().item() == pytest.approx(0, abs=1e-9)
    for i in (0, n - 1):
        up, down = np.ones(n), np.ones(n)
        up[i], down[i] = 1 + 1e-5, 1 - 1e-5
        slope = (rsa_as_written(*problem, up) - rsa_as_written(*problem, down)) / 2e-5
        assert influence[i].item() == pytest.approx(n * slope, rel=1e-4, abs=1e-6)
    assert score == rsa(*problem)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_leaves_its_input_as_it_was_and_computes_in_float64(dtype):
    features, reference = made(20, 10).to(dtype), made(20, 5, 1)
    before = features.clone()
    assert rsa(features, reference) == rsa(features.double(), reference)
    assert torch.equal(features, before)


@pytest.mark.parametrize("shape", [(2, 5), (5, 1)])
def test_too_few_rows_or_columns_are_refused_by_name(shape):
    with pytest.raises(ValueError, match=r"`features` must have at least 3 rows and 2 columns, got shape \("):
        rsa(made(*shape), RankedReference(shape[0], torch.zeros(1, dtype=torch.int32)))
    with pytest.raises(ValueError, match=r"`reference` must have at least 3 rows"):
        rank_reference(made(*shape))


@pytest.mark.parametrize("value", [0.0, 0.1, 1e7])
def test_constant_sides_are_refused_by_name(value):
    constant, other = torch.full((6, 4), value), made(6, 4)
    with pytest.raises(ValueError, match="`features` must make some pairs"):
        rsa(constant, other)
    with pytest.raises(ValueError, match="`reference` must make some pairs"):
        rsa(other, constant)


def test_a_reference_of_other_samples_is_refused():
    with pytest.raises(ValueError, match=r"one row per row of `features`, 6, got 7"):
        rsa(made(6, 4), made(7, 4))


def test_a_reference_that_is_not_finite_is_refused_by_name():
    reference = made(6, 4)
    reference[2, 2] = torch.nan
    with pytest.raises(ValueError, match=r"`reference` must be finite, got 1 of 6 rows"):
        rsa(made(6, 4), reference)
