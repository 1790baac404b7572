import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from hf_zoosel.metrics.h_score import h_score, ledoit_wolf
from tests.metrics.transcriptions.h_score import h_score_as_written, ledoit_wolf_as_written


@st.composite
def problems(draw):
    n, d, k = draw(st.integers(5, 25)), draw(st.integers(1, 30)), draw(st.integers(2, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    labels = torch.randint(k, (n,), generator=generator)
    labels[:k] = torch.arange(k)  # every class appears, some once
    signal, offset = draw(st.sampled_from([0.0, 0.5, 3.0])), draw(st.sampled_from([0.0, 10.0]))
    scales = torch.rand(d, generator=generator, dtype=torch.float64) + 0.2
    classes = signal * torch.randn(k, d, generator=generator, dtype=torch.float64)
    features = offset + scales * (classes[labels] + torch.randn(n, d, generator=generator, dtype=torch.float64))
    return features, labels


def problem(n, d, k, signal=0.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % k
    classes = signal * torch.randn(k, d, generator=generator, dtype=torch.float64)
    spread = torch.linspace(0.2, 3, d, dtype=torch.float64)
    return classes[labels] + spread * torch.randn(n, d, generator=generator, dtype=torch.float64), labels


def shrinkage_of(features):
    centred = features - features.mean(dim=0)
    return ledoit_wolf(centred.square().sum(dim=1), centred.T @ centred, features.shape[1])


@settings(max_examples=20)
@given(problems())
def test_equals_the_formula_of_the_paper(case):
    assert h_score(*case) == pytest.approx(h_score_as_written(*case), rel=1e-9, abs=1e-11)


@settings(max_examples=20)
@given(problems())
def test_the_shrinkage_is_that_of_ledoit_and_wolf_and_of_scikit_learn(case):
    covariance = pytest.importorskip("sklearn.covariance")
    features = case[0]
    ours = shrinkage_of(features)
    assert ours == pytest.approx(ledoit_wolf_as_written(features.numpy()), rel=1e-9, abs=1e-12)
    assert ours == pytest.approx(covariance.ledoit_wolf_shrinkage(features.numpy()), rel=1e-9, abs=1e-12)


@settings(max_examples=20)
@given(problems())
def test_equals_the_plain_h_score_for_more_samples_than_features(case):
    features, labels = case
    features = features[:, : max(1, len(features) // 2 - 1)]
    expected = h_score_as_written(features, labels, a=0)
    assert h_score(features, labels, shrinkage="none") == pytest.approx(expected, rel=1e-8)


def test_equals_the_transfer_learning_library_but_for_its_divisors():
    covariance = pytest.importorskip("sklearn.covariance")
    for n, d in [(80, 12), (40, 90)]:
        features, labels = problem(n, d, k=4)
        f, y = features.numpy(), labels.numpy()
        fitted = covariance.LedoitWolf().fit(f)
        means = np.stack([f[y == c].mean(axis=0) for c in range(4)])[y]
        between = (1 - fitted.shrinkage_) * np.cov(means, rowvar=False)  # divides by n - 1, the other by n
        peer = np.trace(np.linalg.pinv(fitted.covariance_) @ between)
        assert h_score(features, labels) == pytest.approx(peer * (n - 1) / n, rel=1e-10)


@settings(max_examples=20)
@given(problems())
def test_lies_between_zero_and_the_number_of_classes_less_one(case):
    features, labels = case
    assert -1e-12 <= h_score(features, labels) <= min(int(labels.max()), features.shape[1]) + 1e-12


@settings(max_examples=20)
@given(problems(), st.sampled_from([1e-20, 1e-4, 1e4, 1e20]))
def test_ignores_the_scale_of_the_features(case, scale):
    features, labels = case
    assert h_score(scale * features, labels) == pytest.approx(h_score(features, labels), rel=1e-9, abs=1e-12)


@settings(max_examples=20)
@given(problems())
def test_ignores_rotations_and_a_common_shift(case):
    features, labels = case
    d = features.shape[1]
    rotation = torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
    turned = features @ rotation + 7
    assert h_score(turned, labels) == pytest.approx(h_score(features, labels), rel=1e-8, abs=1e-11)


def test_wide_models_do_not_tie_as_they_do_without_shrinkage():
    weak, strong = problem(40, 100, 5, signal=0.2), problem(40, 100, 5, signal=2.0)
    assert h_score(*weak) < h_score(*strong) < 4
    with pytest.warns(UserWarning, match=r"40 samples of 100 features fit any labels. Use `shrinkage=\"ledoit"):
        assert h_score(*weak, shrinkage="none") == pytest.approx(4, rel=1e-10)
    with pytest.warns(UserWarning, match="saturates"):
        assert h_score(*strong, shrinkage="none") == pytest.approx(4, rel=1e-10)


def test_the_plain_score_is_silent_where_it_has_a_meaning_and_drops_dead_features():
    features, labels = problem(60, 6, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alive = h_score(features, labels, shrinkage="none")
        padded = torch.cat([features, torch.zeros(60, 2), features[:, :1]], dim=1)
        assert h_score(padded, labels, shrinkage="none") == pytest.approx(alive, rel=1e-10)
    assert alive < 2


@pytest.mark.parametrize("shape", [(12, 3), (6, 40)])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e7])
def test_constant_features_score_zero(shape, value):
    features = torch.full(shape, value, dtype=torch.float64)
    assert h_score(features, torch.arange(shape[0]) % 2) == 0
    assert h_score(features[:, :2].repeat(5, 1), torch.arange(5 * shape[0]) % 2, shrinkage="none") == 0


def test_one_feature_and_two_samples_need_no_shrinkage():
    assert h_score(torch.tensor([[0.0], [1.0], [2.0], [3.0]]), torch.tensor([0, 0, 1, 1])) == pytest.approx(0.8)
    assert h_score(torch.tensor([[1.0, 2.0, 3.0], [0.0, 5.0, 1.0]]), torch.tensor([0, 1])) == pytest.approx(1)


def test_features_without_structure_are_shrunk_to_nothing():
    """a = 1 where each sample's own direction is all the covariance has: scikit-learn says so as well."""
    features = torch.eye(6)
    assert shrinkage_of(features.double()) == 1
    assert h_score(features, torch.arange(6) % 2) == 0


def test_duplicate_samples_leave_a_score():
    features, labels = problem(12, 30, 3)
    twice = torch.cat([features, features]), torch.cat([labels, labels])
    assert h_score(*twice) == pytest.approx(h_score_as_written(*twice), rel=1e-9)


def test_an_unknown_shrinkage_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"'ledoit-wolf', 'none'.*'oas'"):
        h_score(torch.eye(3), torch.tensor([0, 1, 1]), shrinkage="oas")
