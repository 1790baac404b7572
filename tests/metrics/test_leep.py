import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from hf_zoosel.metrics import leep
from hf_zoosel.metrics.leep import leep_influence
from tests.metrics.transcriptions.leep import leep_as_written


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
    assert leep(probs, labels) == pytest.approx(leep_as_written(probs, labels), rel=1e-12)


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


def test_a_source_class_without_mass_is_no_zero_by_zero_as_in_four_peers():
    probs, labels = torch.tensor([[0.9, 0.0, 0.1], [0.2, 0.0, 0.8], [0.4, 0.0, 0.6]]), torch.tensor([0, 1, 1])
    with pytest.raises(ZeroDivisionError):
        leep_as_written(probs, labels)
    joint = torch.zeros(2, 3).index_add_(0, labels, probs)
    assert ((joint / joint.sum(dim=0))[labels] * probs).sum(dim=1).log().mean().isnan()  # what the copies return
    assert leep(probs, labels) == pytest.approx(leep_as_written(probs[:, [0, 2]], labels), rel=1e-6)


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
    slope = (leep_as_written(probs, labels, up) - leep_as_written(probs, labels, down)) / (2 * step)
    assert (influence[i] - influence.mean()).item() == pytest.approx(n * slope, rel=1e-6, abs=1e-8)
