import pytest
import torch
from hypothesis import given, settings, strategies as st

from hf_zoosel.metrics import linear
from hf_zoosel.metrics.linear import linear_influence
from tests.metrics.transcriptions.linear import linear_as_written, penalty_as_written


@st.composite
def problems(draw):
    n, d, k = draw(st.integers(5, 16)), draw(st.integers(1, 24)), draw(st.integers(2, 3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    labels = torch.randint(k, (n,), generator=generator)
    labels[:k] = torch.arange(k)
    signal = draw(st.sampled_from([0.0, 0.5, 2.0]))
    features = 5 + torch.randn(n, d, generator=generator) + signal * torch.randn(k, d, generator=generator)[labels]
    return features, labels


@settings(max_examples=50)
@given(problems())
def test_equals_refitting_without_each_sample(problem):
    assert linear(*problem) == pytest.approx(linear_as_written(*problem), rel=1e-12)


@settings(max_examples=25)
@given(problems(), st.sampled_from([1e-4, 1.0, 100.0]))
def test_equals_refitting_at_a_fixed_strength(problem, strength):
    expected = linear_as_written(*problem, strengths=(strength,))
    assert linear(*problem, strengths=(strength,)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("n", "d"), [(80, 12), (40, 90)])
def test_equals_the_ridge_classifier_of_scikit_learn_at_a_fixed_strength(n, d):
    sklearn_linear = pytest.importorskip("sklearn.linear_model")
    generator = torch.Generator().manual_seed(n)
    labels = torch.arange(n) % 4
    features = torch.randn(n, d, generator=generator) + 0.6 * torch.randn(4, d, generator=generator)[labels]
    f = features.double().numpy()
    peer = sklearn_linear.RidgeClassifierCV(alphas=[penalty_as_written(f, 0.1)], scoring="accuracy").fit(
        f, labels.numpy()
    )
    assert linear(features, labels, strengths=(0.1,)) == pytest.approx(peer.best_score_, rel=1e-12)


@settings(max_examples=25)
@given(problems(), st.sampled_from([1e-12, 1e-4, 1e4, 1e12]))
def test_ignores_the_scale_of_the_features(problem, scale):
    features, labels = problem
    assert linear(scale * features.double(), labels) == pytest.approx(linear(features.double(), labels), rel=1e-12)


@pytest.mark.parametrize("shape", [(12, 3), (6, 40)])
def test_constant_features_fall_back_on_the_largest_other_class(shape):
    n = shape[0]
    labels = (torch.arange(n) < n // 3).long()
    assert linear(torch.full(shape, 0.1), labels) == pytest.approx(1 - (n // 3) / n)


def test_identical_classes_share_the_vote():
    features = torch.tensor([[0.0], [0.0], [0.0], [8.0], [8.0], [8.0], [8.0]])
    labels = torch.tensor([5, 5, 5, 1, 1, 2, 2])
    right = linear_influence(features, labels, strengths=(1e-6,))[1]
    assert right[:3].tolist() == [1, 1, 1]
    assert right[3:].tolist() == [0, 0, 0, 0]  # left out, a sample makes its own class the rarer of the two


@pytest.mark.parametrize("strengths", [(), (0.0,), (1.0, -1.0)])
def test_strengths_that_are_not_positive_are_refused(strengths):
    with pytest.raises(ValueError, match="`strengths` must be positive"):
        linear(torch.eye(3), torch.tensor([0, 1, 1]), strengths=strengths)
