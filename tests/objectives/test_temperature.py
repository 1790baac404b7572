import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from hf_zoosel.objectives import fit_temperature


def drawn_from(logits, generator):
    """Labels that ``logits`` are right about: drawn from their softmax."""
    return torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]


def loss_as_written(logits, labels, temperature):
    """The mean negative log-likelihood, sample by sample."""
    total = 0.0
    for row, y in zip(logits.tolist(), labels.tolist(), strict=True):
        total -= row[y] / temperature - math.log(sum(math.exp(value / temperature) for value in row))
    return total / len(labels)


@st.composite
def overlapping(draw):
    """Logits that are right of some samples and wrong of others."""
    n, k = draw(st.integers(8, 40)), draw(st.integers(2, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    logits = 3 * torch.randn(n, k, generator=generator, dtype=torch.float64)
    labels = drawn_from(logits, generator)
    labels[:3], labels[3:8] = logits[:3].argmin(1), logits[3:8].argmax(1)
    return logits, labels


@settings(max_examples=40)
@given(overlapping())
def test_is_the_least_of_the_loss_written_out(case):
    logits, labels = case
    slope = (logits - logits.gather(1, labels[:, None])).mean().item()  # of the loss in 1 / T where that is 0
    if slope >= -1e-6:
        return  # the logits are wrong: no optimum, tested below
    best = fit_temperature(logits, labels)
    at, below, above = (loss_as_written(logits, labels, best * by) for by in (1, 1 - 1e-4, 1 + 1e-4))
    assert at <= below
    assert at <= above


@settings(max_examples=20)
@given(overlapping(), st.floats(1e-3, 1e3), st.floats(-50, 50))
def test_follows_the_unit_of_the_logits_and_ignores_a_shift(case, unit, shift):
    logits, labels = case
    if (logits - logits.gather(1, labels[:, None])).mean() >= -1e-6:
        return
    assert fit_temperature(unit * logits, labels) == pytest.approx(unit * fit_temperature(logits, labels), rel=1e-9)
    assert fit_temperature(logits + shift, labels) == pytest.approx(fit_temperature(logits, labels), rel=1e-8)


def test_two_classes_have_a_closed_form():
    logits, labels = torch.tensor([[3.0, 0.0]]).repeat(10, 1), torch.tensor([0] * 9 + [1])
    assert fit_temperature(logits, labels) == pytest.approx(3 / math.log(9), rel=1e-12)  # sigmoid(3 / T) = 0.9


@pytest.mark.parametrize("true", [0.5, 1.131, 4.0])
def test_the_temperature_that_made_the_labels_comes_back(true):
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(20_000, 10, generator=generator)
    labels = drawn_from(logits / true, generator)
    assert fit_temperature(logits, labels) == pytest.approx(true, rel=0.03)


def test_blocks_of_rows_do_not_show(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 4, generator=generator)
    labels = drawn_from(logits, generator)
    whole = fit_temperature(logits, labels)
    monkeypatch.setattr("hf_zoosel.objectives.temperature._BLOCK", 12)
    assert fit_temperature(logits, labels) == pytest.approx(whole, rel=1e-12)


def test_half_precision_is_summed_in_float64():
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(500, 8, generator=generator)).bfloat16()
    labels = drawn_from(logits.float(), generator)
    assert fit_temperature(logits, labels) == fit_temperature(logits.double(), labels)


def test_separable_logits_meet_the_bound_with_a_warning():
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    with pytest.warns(RuntimeWarning, match=r"no sample contradicts the logits: 0\.002 is the low end"):
        assert fit_temperature(logits, torch.tensor([0, 1])) == 2 / 1000


def test_logits_that_are_wrong_meet_the_other_bound_with_a_warning():
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    with pytest.warns(RuntimeWarning, match="tell nothing of the labels: 2e\\+03 is the high end"):
        assert fit_temperature(logits, torch.tensor([1, 0])) == 2 / 1e-3


def test_logits_that_are_equal_within_each_sample_give_one():
    assert fit_temperature(torch.tensor([[1.0, 1.0], [7.0, 7.0]]), torch.tensor([0, 1])) == 1.0


@pytest.mark.parametrize(
    ("logits", "labels", "error", "message"),
    [
        (torch.zeros(2, 3), torch.tensor([0, 3]), ValueError, r"must be class ids in 0\.\.2, got ids from 0 to 3"),
        (torch.zeros(2, 3), torch.tensor([0]), ValueError, r"`labels` must have shape \(2,\).*got \(1,\)"),
        (torch.zeros(2, 3), torch.zeros(2), TypeError, "`labels` must be a torch tensor of integer class ids"),
        (torch.full((2, 3), math.nan), torch.tensor([0, 1]), ValueError, "`logits` must be finite, got 2 of 2 rows"),
        (torch.zeros(2, 3, dtype=torch.int64), torch.tensor([0, 1]), TypeError, "`logits` must be a floating-point"),
        (torch.zeros(3), torch.tensor([0, 1, 2]), ValueError, "`logits` must be 2-D"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(logits, labels, error, message):
    with pytest.raises(error, match=message):
        fit_temperature(logits, labels)
