import pytest
import torch
from hypothesis import given, strategies as st

from hf_zoosel.objectives import lwf
from tests.objectives.transcriptions.lwf import lwf_as_written, lwf_gradient_as_written


def logits(seed, n=4, k=5):
    return 3 * torch.randn(n, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.integers(0, 2**31), st.floats(0.5, 5))
def test_is_the_papers_loss_less_the_entropy_of_the_start_gradients_included(seed, temperature):
    kept, start = logits(seed).requires_grad_(), logits(seed + 1)
    penalty = lwf(kept, start, temperature=temperature)
    loss, entropy = lwf_as_written(kept.tolist(), start.tolist(), temperature)
    assert penalty.item() == pytest.approx(loss - entropy, rel=1e-10, abs=1e-10)
    (gradient,) = torch.autograd.grad(penalty, kept)
    expected = torch.tensor(lwf_gradient_as_written(kept.tolist(), start.tolist(), temperature), dtype=torch.float64)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


@given(st.integers(0, 2**31), st.floats(-9, 9))
def test_is_never_negative_and_a_shift_of_the_logits_changes_nothing(seed, shift):
    kept, start = logits(seed), logits(seed + 1)
    assert lwf(kept, start) >= 0
    torch.testing.assert_close(lwf(kept + shift, start - shift), lwf(kept, start))


def test_no_gradient_reaches_the_start_network():
    kept, start = logits(0).requires_grad_(), logits(1).requires_grad_()
    lwf(kept, start).backward()
    assert start.grad is None
    assert kept.grad.abs().sum() > 0


def test_what_cannot_be_distilled_is_refused():
    with pytest.raises(ValueError, match=r"must be .* of the same images and head, got shapes \(4, 5\) and \(4, 6\)"):
        lwf(logits(0), logits(0, k=6))
    with pytest.raises(ValueError, match=r"of the same images and head"):
        lwf(logits(0)[0], logits(0)[0])
    for temperature in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=r"`temperature` must be above 0"):
            lwf(logits(0), logits(1), temperature=temperature)
