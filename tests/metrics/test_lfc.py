import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from hf_zoosel.metrics import lfc
from hf_zoosel.metrics.lfc import lfc_influence


def lfc_by_the_paper(features, labels, weights=None, dtype=np.float64):
    """Eq. 8 of arXiv:2102.00084 with both n x n matrices; pairs count w_i w_j times."""
    f, y = features.numpy().astype(dtype), labels.numpy()
    w = np.ones(len(f), dtype) if weights is None else weights
    pairs = np.outer(w, w) / w.sum() ** 2
    theta, kernel = f @ f.T, np.where(y[:, None] == y, 1, -1).astype(dtype)
    theta, kernel = theta - (pairs * theta).sum(), kernel - (pairs * kernel).sum()
    norms = np.sqrt((pairs * theta**2).sum()) * np.sqrt((pairs * kernel**2).sum())
    return float((pairs * theta * kernel).sum() / norms)


@st.composite
def problems(draw):
    n, d, k = draw(st.integers(4, 14)), draw(st.integers(1, 20)), draw(st.integers(2, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    offset = draw(st.sampled_from([0.0, 1.0, 10.0]))
    features = offset + torch.randn(n, d, dtype=torch.float64, generator=generator)
    labels = torch.randint(k, (n,), generator=generator)
    labels[:k] = torch.arange(k)  # every class appears
    return features, labels


@given(problems())
def test_equals_the_formula_of_the_paper(problem):
    assert lfc(*problem) == pytest.approx(lfc_by_the_paper(*problem), rel=1e-10, abs=1e-12)


@given(problems())
def test_lies_between_minus_one_and_one(problem):
    features, labels = problem
    assert abs(lfc(features, labels)) <= 1
    assert (
        abs(lfc(torch.nn.functional.one_hot(labels).double(), labels)) <= 1
    )  # the spectral-norm copies exceed 1 here


@pytest.mark.parametrize("scale", [1.0, 0.1, 1e4, 1e-8])
def test_is_one_where_the_kernel_is_the_label_kernel(scale):
    sign = torch.tensor([[1.0], [1.0], [-1.0], [-1.0], [-1.0]])
    assert lfc(scale * sign, sign.flatten().long()) == pytest.approx(1, rel=1e-15)


@given(problems(), st.sampled_from([1e-20, 1e-4, 1e4, 1e20]))
def test_ignores_the_scale_of_the_features(problem, scale):
    features, labels = problem
    assert lfc(scale * features, labels) == pytest.approx(lfc(features, labels), rel=1e-10, abs=1e-13)


@pytest.mark.parametrize("shape", [(400, 20), (60, 300)])
def test_sums_in_float64_where_float32_means_would_swap_models(shape):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(shape[0]) % 4
    features = (
        300 + torch.randn(shape, generator=generator) + 0.3 * torch.randn(4, shape[1], generator=generator)[labels]
    )
    exact = lfc_by_the_paper(features, labels, dtype=np.longdouble)
    assert lfc(features, labels) == pytest.approx(exact, rel=1e-10)
    assert lfc_by_the_paper(features, labels, dtype=np.float32) != pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize("shape", [(8, 3), (3, 8)])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e7])
def test_refuses_constant_features(shape, value):
    features = torch.full(shape, value, dtype=torch.float64)
    with pytest.raises(ValueError, match="same row for all"):
        lfc(features, torch.arange(shape[0]) % 2)


@settings(max_examples=25)
@given(problems())
def test_influence_is_the_derivative_in_the_weight_of_a_sample(problem):
    features, labels = problem
    score, influence = lfc_influence(features, labels)
    assert score == pytest.approx(lfc(features, labels), rel=1e-12, abs=1e-14)
    assert influence.sum().item() == pytest.approx(0, abs=1e-8)
    for i, step in [(0, 1e-5), (len(labels) - 1, 1e-5)]:
        up, down = np.ones(len(labels)), np.ones(len(labels))
        up[i], down[i] = 1 + step, 1 - step
        slope = (lfc_by_the_paper(features, labels, up) - lfc_by_the_paper(features, labels, down)) / (2 * step)
        assert influence[i].item() == pytest.approx(len(labels) * slope, rel=1e-4, abs=1e-6)
