import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from hf_zoosel.metrics import leep
from hf_zoosel.metrics.leep import leep_influence


def leep_by_the_paper(source_probs, labels, weights=None):
    """Eqs. 1-2 of arXiv:2002.12462, written as the sums they are; sample i counts w_i times."""
    theta, y = source_probs.tolist(), labels.tolist()
    n, n_source = len(theta), len(theta[0])
    w = [1.0] * n if weights is None else weights

    def joint(c, z):
        return sum(w[i] * theta[i][z] for i in range(n) if y[i] == c) / sum(w)

    def conditional(c, z):
        return joint(c, z) / sum(joint(other, z) for other in set(y))

    logs = [math.log(sum(conditional(y[i], z) * theta[i][z] for z in range(n_source))) for i in range(n)]
    return sum(w[i] * logs[i] for i in range(n)) / sum(w)


@st.composite
def predictions(draw):
    n, n_source, k = draw(st.integers(4, 12)), draw(st.integers(2, 5)), draw(st.integers(2, 3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    probs = torch.rand(n, n_source, dtype=torch.float64, generator=generator).softmax(1)
    labels = torch.randint(k, (n,), generator=generator)
    labels[:k] = torch.arange(k)  # every class appears
    return probs, labels


@given(predictions())
def test_equals_the_formula_of_the_paper(case):
    probs, labels = case
    assert leep(probs, labels) == pytest.approx(leep_by_the_paper(probs, labels), rel=1e-12)


@given(predictions(), st.randoms(use_true_random=False))
def test_ignores_sample_order_and_class_names(case, random):
    probs, labels = case
    order = random.sample(range(len(labels)), len(labels))
    assert leep(probs[order], 100 - 7 * labels[order]) == pytest.approx(leep(probs, labels), rel=1e-12)


@given(predictions())
def test_is_never_positive(case):
    assert leep(*case) <= 1e-12


def test_uninformative_predictions_score_minus_the_label_entropy():
    labels = torch.tensor([0, 0, 0, 1])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert leep(torch.full((4, 3), 1 / 3), labels) == pytest.approx(-entropy)


def test_a_source_class_never_predicted_changes_nothing():
    probs, labels = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]), torch.tensor([0, 1, 1])
    padded = torch.cat([probs, torch.zeros(3, 1)], dim=1)
    score, influence = leep_influence(padded, labels)
    assert score == leep(padded, labels) == pytest.approx(leep(probs, labels))
    assert torch.allclose(influence, leep_influence(probs, labels)[1])


def test_logits_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"least value of -1 and row sums in \[1, 3\].*pass `logits.softmax"):
        leep(torch.tensor([[2.0, -1.0], [0.0, 3.0]]), torch.tensor([0, 1]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_softmax_in_half_precision_is_accepted(dtype):
    generator = torch.Generator().manual_seed(0)
    probs = (4 * torch.randn(60, 1000, generator=generator)).softmax(1)
    labels = torch.arange(60) % 3
    assert leep(probs.to(dtype), labels) == pytest.approx(leep(probs, labels), rel=1e-2)


@settings(max_examples=25)
@given(predictions(), st.integers(0, 3))
def test_influence_is_the_derivative_in_the_weight_of_a_sample(case, i):
    probs, labels = case
    score, influence = leep_influence(probs, labels)
    n, step = len(labels), 1e-5
    assert score == leep(probs, labels)
    assert influence.mean().item() == pytest.approx(score, rel=1e-12)
    up, down = ([1 + sign * step if j == i else 1 for j in range(n)] for sign in (1, -1))
    slope = (leep_by_the_paper(probs, labels, up) - leep_by_the_paper(probs, labels, down)) / (2 * step)
    assert (influence[i] - influence.mean()).item() == pytest.approx(n * slope, rel=1e-6, abs=1e-8)
