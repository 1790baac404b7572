import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from hf_zoosel.metrics.domain_similarity import domain_similarity, domain_similarity_influence
from tests.metrics.transcriptions.domain_similarity import domain_similarity_as_written


def problem(n, d, k, k_source, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(k, (n,), generator=generator)
    labels[:k] = torch.arange(k)
    features = 3 * torch.randn(k, d, generator=generator, dtype=torch.float64)[labels]
    features += torch.randn(n, d, generator=generator, dtype=torch.float64)
    means = 3 * torch.randn(k_source, d, generator=generator, dtype=torch.float64)
    return features, labels, means, torch.randint(1, 600, (k_source,), generator=generator)


SHAPES = (st.integers(4, 40), st.integers(1, 30), st.integers(2, 4), st.integers(1, 8), st.integers(0, 999))


@settings(max_examples=30)
@given(*SHAPES)
def test_equals_the_linear_programme(n, d, k, k_source, seed):
    case = problem(n, d, k, k_source, seed)
    assert domain_similarity(*case) == pytest.approx(domain_similarity_as_written(*case), rel=1e-9)
    assert 0 < domain_similarity(*case) <= 1


def test_distances_of_the_paper_give_its_similarities():
    """Cui et al.: ImageNet to CUB 57.532 and .563, to Flowers 64.492 and .525, to Dogs 48.044 and .619."""
    labels = torch.arange(10) % 2
    for distance, similarity in [(57.532, 0.563), (64.492, 0.525), (48.044, 0.619)]:
        source = torch.tensor([[distance, 0.0]])
        score = domain_similarity(torch.zeros(10, 2), labels, source, torch.tensor([1000]))
        assert score == pytest.approx(similarity, abs=5e-4)
        assert score == pytest.approx(math.exp(-0.01 * distance), rel=1e-6)


def test_from_one_source_class_it_is_the_mean_distance_to_the_target_classes():
    features, labels, means, _ = problem(30, 5, 3, 1)
    counts = labels.bincount().double()
    centres = torch.stack([features[labels == c].mean(0) for c in range(3)])
    mean_distance = (counts * (centres - means).norm(dim=1)).sum() / 30
    score = domain_similarity(features, labels, means, torch.tensor([7]), gamma=1.0)
    assert score == pytest.approx(math.exp(-mean_distance), rel=1e-10)


def test_a_target_is_like_itself():
    features, labels, _, _ = problem(30, 5, 3, 1)
    centres = torch.stack([features[labels == c].mean(0) for c in range(3)])
    assert domain_similarity(features, labels, centres, labels.bincount() * 100) == pytest.approx(1, rel=1e-7)


def test_small_classes_are_left_out_and_all_kept_where_none_is_large():
    features, labels = torch.tensor([[0.0]] * 5 + [[90.0]] * 4), torch.tensor([0] * 5 + [1] * 4)
    source, counts = torch.tensor([[0.0], [50.0]]), torch.tensor([200, 199])
    assert domain_similarity(features, labels, source, counts) == 1
    both = domain_similarity(features, labels, source, counts, least=1)
    assert both == pytest.approx(math.exp(-0.01 * 90 * 4 / 9), rel=1e-9)
    few = domain_similarity(features, labels, source, counts, least=6, least_source=201, gamma=1.0)
    assert few == pytest.approx(domain_similarity_as_written(features, labels, source, counts, 1.0, 0, 0), rel=1e-9)


def test_ignores_order_class_names_and_a_common_shift():
    features, labels, means, counts = problem(40, 6, 4, 5)
    generator = torch.Generator().manual_seed(1)
    order, source_order = torch.randperm(40, generator=generator), torch.randperm(5, generator=generator)
    other = domain_similarity(
        features[order] + 1e4, 100 - 7 * labels[order], means[source_order] + 1e4, counts[source_order]
    )
    assert other == pytest.approx(domain_similarity(features, labels, means, counts), rel=1e-9)


@settings(max_examples=20)
@given(*SHAPES)
def test_influence_is_the_derivative_in_the_weight_of_a_sample(n, d, k, k_source, seed):
    case = problem(n, d, k, k_source, seed)
    score, influence = domain_similarity_influence(*case)
    assert score == domain_similarity(*case)
    assert influence.sum().item() == pytest.approx(0, abs=1e-9)
    up, down = np.ones(n), np.ones(n)
    up[1], down[1] = 1 + 1e-5, 1 - 1e-5
    slope = domain_similarity_as_written(*case, weights=up) - domain_similarity_as_written(*case, weights=down)
    assert influence[1].item() == pytest.approx(n * slope / 2e-5, rel=1e-4, abs=1e-7)


def test_a_plan_without_mass_is_an_error_and_not_a_similarity_of_one(monkeypatch):
    import ot

    monkeypatch.setattr(ot, "emd", lambda a, b, cost, **_: (0 * cost, {"warning": None}))
    with pytest.raises(RuntimeError, match=r"plan of mass 1.*got mass 0"):
        domain_similarity(*problem(20, 4, 2, 3))


@pytest.mark.parametrize(
    ("means", "counts", "message"),
    [
        (torch.zeros(3, 5), torch.ones(3), r"`source_means` must have at least 1 row and 4 columns.*\(3, 5\)"),
        (torch.zeros(0, 4), torch.ones(0), r"`source_means` must have at least 1 row"),
        (torch.full((3, 4), math.nan), torch.ones(3), "`source_means` must be finite"),
        (torch.zeros(3, 4), torch.ones(2), r"`source_counts` must be 3 positive numbers"),
        (torch.zeros(3, 4), torch.tensor([1, 0, 2]), r"a least value of 0"),
    ],
)
def test_source_statistics_that_do_not_fit_are_refused(means, counts, message):
    features, labels, _, _ = problem(20, 4, 2, 3)
    with pytest.raises(ValueError, match=message):
        domain_similarity(features, labels, means, counts)


def test_a_scale_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="`gamma` must be positive, got 0"):
        domain_similarity(*problem(20, 4, 2, 3), gamma=0)
