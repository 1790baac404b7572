import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from hf_zoosel.metrics.leep import leep
from hf_zoosel.metrics.nce import nce, nce_influence
from tests.metrics.transcriptions.nce import nce_as_written


@st.composite
def predictions(draw):
    n, n_source, k = draw(st.integers(4, 30)), draw(st.integers(1, 6)), draw(st.integers(2, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    probs = torch.rand(n, n_source, dtype=torch.float64, generator=generator).softmax(1)
    labels = torch.randint(k, (n,), generator=generator)
    labels[:k] = torch.arange(k)
    return probs, labels


def entropy(labels):
    shares = labels.bincount().double() / len(labels)
    return -(shares * shares.log()).nansum().item()


@given(predictions())
def test_equals_the_formula_of_the_paper(case):
    assert nce(*case) == pytest.approx(nce_as_written(*case), rel=1e-12, abs=1e-15)


def test_equals_the_sum_done_by_hand():
    probs, labels = torch.eye(2)[torch.tensor([0, 0, 0, 1])], torch.tensor([0, 0, 1, 1])
    assert nce(probs, labels) == pytest.approx((2 * math.log(2 / 3) + math.log(1 / 3)) / 4, rel=1e-12)


@given(predictions())
def test_lies_between_minus_the_label_entropy_and_zero(case):
    assert -entropy(case[1]) - 1e-12 <= nce(*case) <= 0


@given(predictions())
def test_equals_leep_on_predictions_of_zero_and_one(case):
    probs, labels = case
    hard = torch.nn.functional.one_hot(probs.argmax(1), probs.shape[1]).double()
    assert nce(probs, labels) == nce(hard, labels) == pytest.approx(leep(hard, labels), rel=1e-12, abs=1e-15)


@given(predictions(), st.randoms(use_true_random=False))
def test_ignores_sample_order_and_names_of_both_kinds_of_classes(case, random):
    probs, labels = case
    order = random.sample(range(len(labels)), len(labels))
    shuffled = probs[order].flip(1)
    assert nce(shuffled, 100 - 7 * labels[order]) == pytest.approx(nce(probs, labels), rel=1e-12, abs=1e-15)


def test_a_head_that_always_says_the_same_scores_minus_the_label_entropy():
    labels = torch.tensor([0, 0, 0, 1])
    assert nce(torch.full((4, 3), 1 / 3), labels) == pytest.approx(-entropy(labels), rel=1e-12)


def test_gaps_between_label_numbers_make_no_phantom_classes():
    probs, labels = torch.eye(3)[torch.tensor([0, 0, 1, 1, 2])], torch.tensor([0, 1, 1, 0, 2])
    assert nce(probs, torch.tensor([-5, 7, 2**40])[labels]) == nce(probs, labels)


@settings(max_examples=25)
@given(predictions(), st.integers(0, 3))
def test_influence_is_the_derivative_in_the_weight_of_a_sample(case, i):
    score, influence = nce_influence(*case)
    n, step = len(case[1]), 1e-5
    assert influence.mean().item() == pytest.approx(score, rel=1e-12, abs=1e-15)
    up, down = ([1 + sign * step if j == i else 1 for j in range(n)] for sign in (1, -1))
    slope = (nce_as_written(*case, up) - nce_as_written(*case, down)) / (2 * step)
    assert (influence[i] - influence.mean()).item() == pytest.approx(n * slope, rel=1e-6, abs=1e-8)


def test_logits_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"pass `logits.softmax"):
        nce(torch.tensor([[2.0, -1.0], [0.0, 3.0]]), torch.tensor([0, 1]))
