import math
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.stats import spearmanr

from hf_zoosel.metrics.parc import parc, parc_influence
from tests.metrics.transcriptions.parc import parc_as_written


@st.composite
def problems(draw):
    n, d, k = draw(st.integers(5, 13)), draw(st.integers(3, 20)), draw(st.integers(2, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    features = draw(st.sampled_from([0.0, 10.0])) + torch.randn(n, d, dtype=torch.float64, generator=generator)
    features = torch.cat([features, features[: draw(st.integers(0, 2))]])[:n]  # duplicates
    labels = torch.randint(k, (n,), generator=generator)
    labels[:k] = torch.arange(k)
    return features, labels


@settings(max_examples=40)
@given(problems())
def test_equals_the_formula_of_the_paper(problem):
    assert parc(*problem) == pytest.approx(parc_as_written(*problem), rel=1e-10, abs=1e-12)


@settings(max_examples=30)
@given(problems(), st.integers(2, 4))
def test_equals_the_formula_on_principal_components(problem, n_components):
    expected = parc_as_written(*problem, n_components=n_components)
    assert parc(*problem, n_components=n_components) == pytest.approx(expected, rel=1e-9, abs=1e-11)


@pytest.mark.parametrize(("n", "d", "k"), [(80, 12, 3), (60, 200, 25)])
def test_equals_scipy_on_the_two_matrices(n, d, k):
    features = torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels, above = torch.arange(n) % k, np.triu_indices(n, 1)
    standard = ((features - features.mean(0)) / features.std(0, correction=0)).numpy()
    one_hot = np.corrcoef(np.eye(k)[labels.numpy()]).round(12)
    expected = spearmanr((1 - np.corrcoef(standard))[above], (1 - one_hot)[above]).statistic
    assert parc(features, labels) == pytest.approx(expected, rel=1e-10)


def test_by_hand():
    features = torch.tensor([[5.0, 1.0, 0.0], [4.0, 0.0, 1.0], [0.0, 3.0, 4.0], [1.0, 4.0, 4.0]])
    # the two pairs of one class rank first of six: 4 / sqrt(17.5 * 4 / 3)
    assert parc(features, torch.tensor([3, 3, 7, 7])) == pytest.approx(math.sqrt(24 / 35), rel=1e-14)


def test_is_one_for_the_labels_themselves_and_at_most_one():
    labels = torch.arange(30) % 5
    assert parc(torch.nn.functional.one_hot(labels).float(), labels) == pytest.approx(1, rel=1e-14)


@settings(max_examples=30)
@given(problems(), st.sampled_from([1e-8, 0.1, 1e6]), st.randoms(use_true_random=False))
def test_ignores_scale_order_and_class_names(problem, scale, random):
    features, labels = problem
    order = random.sample(range(len(features)), len(features))
    units = torch.logspace(-3, 3, features.shape[1], dtype=torch.float64)  # standardised, so each its own
    changed = parc(scale * units * features[order] + scale, 100 - 7 * labels[order])
    assert changed == pytest.approx(parc(features, labels), rel=1e-9, abs=1e-11)
    assert abs(changed) <= 1


@settings(max_examples=12)
@given(problems())
def test_influence_is_the_derivative_in_the_weight_of_a_sample_with_ranks_held(problem):
    score, influence = parc_influence(*problem)
    n = len(influence)
    assert influence.sum().item() == pytest.approx(0, abs=1e-9)
    for i in (0, n - 1):
        up, down = np.ones(n), np.ones(n)
        up[i], down[i] = 1 + 1e-5, 1 - 1e-5
        slope = (parc_as_written(*problem, up) - parc_as_written(*problem, down)) / 2e-5
        assert influence[i].item() == pytest.approx(n * slope, rel=1e-4, abs=1e-6)
    assert score == parc(*problem)


def test_needs_no_gigabyte_of_ranks_as_the_code_of_the_paper_does():
    labels = torch.arange(2000) % 10
    features = torch.randn(2000, 16, generator=torch.Generator().manual_seed(0))
    tracemalloc.start()
    assert abs(parc(features, labels)) < 0.01
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * math.comb(2000, 2)  # bytes a pair; the code of the paper takes over 100


def test_no_two_samples_of_a_class_score_zero():
    features = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    score, influence = parc_influence(features, torch.arange(6))
    assert score == 0
    assert influence.tolist() == [0] * 6


@pytest.mark.parametrize("n_components", [None, 2])
@pytest.mark.parametrize("shape", [(8, 3), (3, 8), (8, 1)])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e7])
def test_refuses_constant_features(shape, value, n_components):
    features = torch.full(shape, value, dtype=torch.float64)
    with pytest.raises(ValueError, match="`features` must make some pairs"):
        parc(features, torch.arange(shape[0]) % 2, n_components=n_components)


@pytest.mark.parametrize("n_components", [None, 8])
def test_one_feature_has_no_correlation_over_dimensions(n_components):
    with pytest.raises(ValueError, match="`features` must make some pairs"):
        parc(torch.randn(10, 1), torch.arange(10) % 2, n_components=n_components)


def test_constant_and_duplicate_features_do_no_harm():
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(20, 6, dtype=torch.float64, generator=generator), torch.arange(20) % 4
    features[:, 2], features[:, 4] = 0.1, features[:, 3]
    assert parc(features, labels) == pytest.approx(parc_as_written(features, labels), rel=1e-10)
    assert parc(features, labels, n_components=32) == parc(features, labels, n_components=4)  # of rank 4


def test_components_beyond_the_first_ones_change_nothing():
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(40, 12, dtype=torch.float64, generator=generator), torch.arange(40) % 4
    features[:, 3:] *= 1e-3
    turned = features @ torch.linalg.qr(torch.randn(12, 12, dtype=torch.float64, generator=generator)).Q
    assert abs(parc(turned, labels, n_components=3)) <= 1
    assert parc(turned, labels, n_components=3) == pytest.approx(parc_as_written(turned, labels, n_components=3))


@pytest.mark.parametrize("n_components", [1, 0, -3])
def test_fewer_than_two_components_are_refused(n_components):
    with pytest.raises(ValueError, match=f"`n_components` must be at least 2.*got {n_components}"):
        parc(torch.randn(6, 4), torch.arange(6) % 2, n_components=n_components)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
@pytest.mark.parametrize("n_components", [None, 4])
def test_leaves_its_input_as_it_was(dtype, n_components):
    features, labels = torch.randn(20, 9).to(dtype), torch.arange(20) % 4
    before = features.clone()
    assert parc(features, labels, n_components=n_components) == parc(
        features.double(), labels, n_components=n_components
    )
    assert torch.equal(features, before)
