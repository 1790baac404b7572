import math

import pytest
import torch
from hypothesis import given, strategies as st

from hf_zoosel.objectives import consistency_loss
from tests.objectives.transcriptions.losses import consistency_as_written


@st.composite
def views(draw):
    n, k = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    return 2 * torch.randn(2, n, k, generator=generator, dtype=torch.float64)


@given(views(), st.floats(0.2, 3), st.sampled_from([0.0, 0.5, 0.8, 1.0]))
def test_value_and_gradient_equal_the_sums_written_out(pair, temperature, threshold):
    weak, strong = pair[0].clone().requires_grad_(), pair[1].clone().requires_grad_()
    loss = consistency_loss(weak, strong, temperature=temperature, threshold=threshold)
    loss.backward()
    value, gradient = consistency_as_written(*pair.tolist(), temperature, threshold)
    assert loss.item() == pytest.approx(value, rel=1e-12, abs=1e-15)
    assert torch.allclose(strong.grad, torch.tensor(gradient, dtype=torch.float64), rtol=0, atol=1e-13)
    assert weak.grad is None


def test_samples_below_the_threshold_count_in_the_mean_alone():
    weak, strong = torch.tensor([[9.0, -9.0], [0.1, 0.0]]), torch.tensor([[0.0, 0.0], [5.0, -5.0]])
    assert consistency_loss(weak, strong, threshold=0.9).item() == pytest.approx(math.log(2) / 2, rel=1e-6)
    assert consistency_loss(weak[1:], strong[1:], threshold=0.9).item() == 0


def test_a_cold_prediction_is_a_label():
    generator = torch.Generator().manual_seed(0)
    weak, strong = torch.randn(2, 20, 4, generator=generator)
    loss = consistency_loss(weak, strong, temperature=1e-4)
    assert loss.item() == pytest.approx(torch.nn.functional.cross_entropy(strong, weak.argmax(1)).item(), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    strong = torch.zeros(3, 10, dtype=dtype, requires_grad=True)
    loss = consistency_loss(torch.zeros(3, 10, dtype=dtype), strong)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(10), rel=1e-6)


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((2, 3), (2, 4)), {}, r"one shape \(n, k\), got \(2, 3\) and \(2, 4\)"),
        (((3,), (3,)), {}, r"one shape \(n, k\)"),
        (((2, 3), (2, 3)), {"temperature": 0.0}, "`temperature` must be above 0, got 0.0"),
        (((2, 3), (2, 3)), {"temperature": math.nan}, "`temperature` must be above 0, got nan"),
        (((2, 3), (2, 3)), {"threshold": 1.5}, r"`threshold` must be in \[0, 1\], got 1.5"),
    ],
)
def test_bad_input_is_refused(shapes, options, message):
    with pytest.raises(ValueError, match=message):
        consistency_loss(*map(torch.zeros, shapes), **options)
