import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from hf_zoosel.metrics.leep import leep
from hf_zoosel.metrics.nleep import _leading, _posteriors, nleep, nleep_influence
from tests.metrics.transcriptions.nleep import nleep_as_written


def problem(n, d, k, signal=0.7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(k, (n,), generator=generator)
    labels[:k] = torch.arange(k)  # the others of a class may be missing: classes of one sample
    means = signal * torch.randn(k, d, generator=generator, dtype=torch.float64)
    return means[labels] + torch.randn(n, d, generator=generator, dtype=torch.float64), labels


@settings(max_examples=15)
@given(
    st.integers(4, 60),
    st.integers(1, 30),
    st.integers(2, 4),
    st.sampled_from(["diag", "full"]),
    st.integers(0, 999),
)
def test_equals_the_steps_of_the_paper(n, d, k, covariance, seed):
    features, labels = problem(n, d, k, seed=seed)
    expected = nleep_as_written(features, labels, seed=seed % 3, covariance=covariance)
    assert nleep(features, labels, seed=seed % 3, covariance=covariance) == pytest.approx(
        expected, rel=1e-9, abs=1e-12
    )


def test_equals_the_steps_of_the_paper_where_a_few_of_many_components_are_kept():
    features, labels = problem(700, 520, 2, signal=1.0)
    features *= torch.arange(1, 521, dtype=torch.float64).pow(-1.0)
    assert nleep(features, labels) == pytest.approx(nleep_as_written(features, labels), rel=1e-9)


@settings(max_examples=8)
@given(st.integers(0, 999), st.sampled_from([torch.float16, torch.float32, torch.bfloat16]))
def test_shuffling_the_samples_changes_neither_the_draws_nor_the_score(seed, dtype):
    features, labels = problem(40, 8, 3, seed=seed)
    features = torch.cat([features, features[:6]]).to(dtype)  # duplicates, with other labels
    labels = torch.cat([labels, 1 - labels[:6].clamp_max(1)])
    order = torch.randperm(46, generator=torch.Generator().manual_seed(seed))
    score, influence = nleep_influence(features, labels)
    shuffled_score, shuffled_influence = nleep_influence(features[order], 100 - 7 * labels[order])
    assert shuffled_score == pytest.approx(score, rel=1e-12)
    assert shuffled_influence.numpy() == pytest.approx(influence[order].numpy(), rel=1e-9, abs=1e-12)


def test_keeps_the_logarithm_that_a_peers_copy_drops():
    features, labels = problem(60, 6, 3)
    posterior = _posteriors(features, labels, 0, (0.8, 5, "diag"))
    assert nleep(features, labels) == leep(posterior, labels) < 0


@settings(max_examples=8)
@given(st.integers(0, 999), st.sampled_from([1e-20, 1e-4, 1e4, 1e20]))
def test_ignores_scale_and_shift_of_the_features(seed, scale):
    features, labels = problem(30, 8, 2, seed=seed)
    assert nleep(scale * features, labels) == pytest.approx(nleep(features, labels), rel=1e-6, abs=1e-9)
    assert nleep(features + 3, labels) == pytest.approx(nleep(features, labels), rel=1e-6, abs=1e-9)


def test_far_clusters_of_one_class_each_score_zero_and_of_mixed_classes_their_label_entropy():
    points = torch.tensor([[0.0, 0.0], [100.0, 0.0], [0.0, 130.0]]).repeat_interleave(20, 0)
    points = points + torch.randn(points.shape, generator=torch.Generator().manual_seed(0))
    pure = torch.arange(3).repeat_interleave(20)
    mixed = torch.arange(60) % 2
    assert nleep(points, pure, energy=1.0, components_per_class=1) == pytest.approx(0, abs=1e-12)
    three = nleep(points, torch.where(torch.arange(60) == 0, 2, mixed), energy=1.0, components_per_class=1)
    first = sum(share * math.log(share) for share in (0.5, 0.45, 0.05))  # labels of the first cluster
    assert three == pytest.approx((first - 2 * math.log(2)) / 3, rel=1e-9)


def test_gaps_between_label_numbers_ask_for_no_more_components():
    features, labels = problem(40, 6, 3)
    assert nleep(features, torch.tensor([-5, 7, 1000])[labels]) == nleep(features, labels)


def test_few_samples_get_at_most_half_as_many_components_and_no_more_than_distinct_ones():
    features, labels = problem(11, 4, 3)
    assert _posteriors(features, labels, 0, (0.8, 5, "diag")).shape == (11, 5)
    repeated = features[:2].repeat(10, 1)
    assert _posteriors(repeated, labels[:2].repeat(10), 0, (0.8, 5, "diag")).shape == (20, 2)


def test_a_fit_that_does_not_converge_gives_its_score_without_a_warning():
    generator = torch.Generator().manual_seed(5)
    features = torch.rand(400, 2, generator=generator, dtype=torch.float64) ** 3
    assert -2 < nleep(features, torch.arange(400) % 2, components_per_class=20, energy=1.0) < 0


def test_the_seed_changes_the_score_a_little_and_the_same_seed_not_at_all():
    features, labels = problem(200, 10, 4)
    scores = [nleep(features, labels, seed=seed) for seed in range(4)]
    assert nleep(features, labels, seed=2) == scores[2]
    assert 0 < max(scores) - min(scores) < 0.3


def test_constant_features_are_refused():
    with pytest.raises(ValueError, match="same row for all"):
        nleep(torch.full((8, 3), 0.1), torch.arange(8) % 2)


@pytest.mark.parametrize("rank", [5, 600])
def test_the_leading_components_are_those_of_the_full_decomposition(rank):
    generator = torch.Generator().manual_seed(0)
    factor = torch.randn(600, rank, generator=generator, dtype=torch.float64) * torch.arange(1, rank + 1) ** -1.5
    gram = factor @ factor.T
    values, vectors = _leading(gram.clone(), 0.8)
    every = torch.linalg.eigvalsh(gram).flip(0)
    assert len(values) < 75
    assert values.numpy() == pytest.approx(every[: len(values)].numpy(), rel=1e-10)
    assert values.sum() >= 0.8 * gram.trace() > values[:-1].sum()
    assert torch.allclose(gram @ vectors, vectors * values, atol=1e-10 * values[0].item())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"energy": 0.0}, r"`energy` must be in \(0, 1\], got 0.0"),
        ({"components_per_class": 0}, "`components_per_class` must be at least 1, got 0"),
        ({"covariance": "dense"}, r"`covariance` must be one of \['diag', 'full'.*'dense'"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        nleep(*problem(20, 4, 2), **options)
