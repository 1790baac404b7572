import math
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from hf_zoosel.linearized import initial_decrease, predicted_loss

LOSSES = {"half_sum": lambda r: 0.5 * (r**2).sum(), "sum": lambda r: (r**2).sum(), "mean": lambda r: (r**2).mean()}
SLOPES = {"half_sum": lambda r: r, "sum": lambda r: 2 * r, "mean": lambda r: 2 * r / r.size}  # -dL / d output


@st.composite
def problems(draw):
    n, p, k = draw(st.integers(1, 8)), draw(st.integers(1, 12)), draw(st.integers(1, 3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    gradients = torch.randn(n, p, dtype=torch.float64, generator=generator)
    residual = torch.randn(n, k, dtype=torch.float64, generator=generator)
    return gradients @ gradients.T, residual


@given(problems(), st.sampled_from(list(LOSSES)), st.floats(0.05, 0.95))
def test_descent_equals_the_recursion_of_the_residual(problem, loss, fraction):
    kernel, residual = problem
    rate = fraction * predicted_loss(kernel, residual, learning_rate=1.0, loss=loss).max_learning_rate
    curve = predicted_loss(kernel, residual, learning_rate=rate, loss=loss)
    r, theta = residual.numpy(), kernel.numpy()
    for step in range(30):
        assert curve.at(step).item() == pytest.approx(LOSSES[loss](r), rel=1e-9, abs=1e-12)
        r = r - rate * theta @ SLOPES[loss](r)


@given(problems(), st.sampled_from(list(LOSSES)), st.floats(0, 5))
def test_flow_equals_the_matrix_exponential_with_the_constants_of_each_loss(problem, loss, time):
    kernel, residual = problem
    exponent = {"half_sum": 2, "sum": 4, "mean": 4 / residual.numel()}[loss]  # Eq. 1 has 2 for every loss
    factor = {"half_sum": 0.5, "sum": 1, "mean": 1 / residual.numel()}[loss]
    decayed = torch.linalg.matrix_exp(-exponent * 0.1 * time * kernel)
    expected = factor * (residual * (decayed @ residual)).sum().item()
    curve = predicted_loss(kernel, residual, learning_rate=0.1, loss=loss, dynamics="flow")
    assert curve.at(time).item() == pytest.approx(expected, rel=1e-7, abs=1e-10)


@given(problems(), st.sampled_from([("half_sum", 1), ("sum", 4)]))
def test_the_first_order_term_is_the_initial_decrease_of_equation_3(problem, loss_and_factor):
    (kernel, residual), (loss, factor) = problem, loss_and_factor
    decrease = initial_decrease(kernel, residual)
    curve = predicted_loss(kernel, residual, learning_rate=1e-3, loss=loss, dynamics="flow")
    time = 1e-4 / curve.eigenvalues[-1].item()
    slope = (curve.at(time).item() - curve.initial) / time
    assert slope == pytest.approx(-1e-3 * factor * decrease, rel=1e-5)


@given(problems(), st.sampled_from(["descent", "flow"]), st.floats(0.01, 0.99))
def test_steps_to_is_the_first_time_that_the_curve_is_low_enough(problem, dynamics, fraction):
    kernel, residual = problem
    curve = predicted_loss(kernel, residual, learning_rate=1.0, dynamics=dynamics)
    curve = replace(curve, learning_rate=0.4 * curve.max_learning_rate)
    loss = curve.limit + fraction * (curve.initial - curve.limit)
    time = curve.steps_to(loss)
    assert 0 < time < math.inf
    assert curve.at(time).item() <= loss * (1 + 1e-9)
    assert curve.at(time - 1 if dynamics == "descent" else 0.999999 * time).item() > loss
    assert dynamics == "flow" or time == int(time)


@given(problems())
def test_small_steps_approach_the_flow(problem):
    kernel, residual = problem
    top = torch.linalg.eigvalsh(kernel)[-1].item()
    flow = predicted_loss(kernel, residual, learning_rate=1 / top, dynamics="flow")
    descent = predicted_loss(kernel, residual, learning_rate=1e-4 / top)
    times = torch.tensor([0.0, 0.5, 1.0, 3.0])
    torch.testing.assert_close(descent.at(1e4 * times), flow.at(times), rtol=1e-3, atol=1e-12)


def curve_of(eigenvalues, residual, **options):
    kernel = torch.diag(torch.tensor(eigenvalues, dtype=torch.float64))
    return predicted_loss(kernel, torch.tensor(residual), **options)


def test_a_loss_at_or_above_the_initial_one_takes_no_steps():
    curve = curve_of([2.0, 1.0], [1.0, 1.0], learning_rate=0.1)
    assert curve.initial == 1.0
    assert curve.steps_to(1.0) == curve.steps_to(7.0) == curve.steps_to(math.inf) == 0


@pytest.mark.parametrize("dynamics", ["descent", "flow"])
def test_what_lies_where_the_kernel_is_zero_is_never_learned(dynamics):
    curve = curve_of([2.0, 0.0], [2.0, 1.0], learning_rate=0.1, dynamics=dynamics)
    assert curve.limit == 0.5
    assert curve.at(1e9).item() == 0.5
    assert curve.steps_to(0.5) == curve.steps_to(0.1) == curve.steps_to(-1.0) == math.inf
    assert curve.steps_to(0.5 + 1e-12) < math.inf


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_eigenvalues_that_are_rounding_count_as_zero(dtype):
    g = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    curve = predicted_loss(g.to(dtype) @ g.T.to(dtype), torch.ones(9), learning_rate=0.01)
    q = torch.linalg.qr(g.double()).Q
    left = torch.ones(9, dtype=torch.float64) - q @ q.sum(dim=0)
    assert curve.eigenvalues.count_nonzero() == 3
    assert curve.limit == pytest.approx(0.5 * left.square().sum().item(), rel=1e-5)


def test_a_kernel_summed_in_float32_and_converted_is_taken_with_its_noise():
    g = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    kernel = (g @ g.T).double()
    assert torch.linalg.eigvalsh(kernel)[0] < -1e-8
    curve = predicted_loss(kernel, torch.ones(9), learning_rate=0.01)
    assert curve.eigenvalues[0] == 0
    assert curve.limit < curve.at(1e4).item() < curve.initial


def test_a_kernel_of_zeros_learns_nothing_at_any_rate():
    curve = curve_of([0.0, 0.0], [1.0, 1.0], learning_rate=1e6)
    assert (curve.at(5).item(), curve.limit, curve.max_learning_rate) == (1.0, 1.0, math.inf)
    assert curve.steps_to(0.9) == math.inf


def test_beyond_the_greatest_stable_rate_the_loss_falls_first_and_rises_ever_after():
    curve = curve_of([2.0, 0.1], [0.01, 1.0], learning_rate=1.05)
    assert curve.max_learning_rate == 1.0
    losses = curve.at(torch.arange(200)).tolist()
    least = int(np.argmin(losses))
    assert 0 < least < 199
    assert curve.limit == math.inf
    assert losses[-1] > losses[0]
    for loss in [losses[least], *np.linspace(losses[least], losses[0], 20)[1:].tolist()]:
        first = next(step for step, value in enumerate(losses) if value <= loss)
        assert curve.steps_to(loss) == first
    assert curve.steps_to(0.999 * losses[least]) == math.inf
    assert curve_of([2.0], [1.0], learning_rate=1.5).steps_to(0.4) == math.inf


def test_the_greatest_stable_rate_itself_neither_falls_nor_rises():
    curve = curve_of([2.0], [1.0], learning_rate=1.0)
    assert curve.at(torch.tensor([0, 1, 7])).tolist() == [0.5, 0.5, 0.5]
    assert curve.limit == 0.5
    assert curve.steps_to(0.4) == math.inf


def test_flow_is_stable_at_any_rate():
    assert curve_of([2.0], [1.0], learning_rate=100.0, dynamics="flow").limit == 0


def test_one_step_at_the_inverse_of_the_only_eigenvalue_reaches_zero():
    curve = curve_of([4.0], [1.0], learning_rate=0.25)
    assert curve.at(torch.tensor([0, 1, 2])).tolist() == [0.5, 0.0, 0.0]
    assert curve.steps_to(1e-30) == 1


def test_slow_and_fast_ends_of_the_spectrum_need_no_more_than_rounding():
    curve = curve_of([1.0, 1e-12], [1.0, 1.0], learning_rate=0.5)
    steps = curve.steps_to(0.25)  # half of the slow part: ln 2 / (2 * 0.5e-12)
    assert steps == pytest.approx(math.log(2) / 1e-12, rel=1e-9)
    flow = curve_of([1.0], [1.0], learning_rate=1e12, dynamics="flow")
    assert flow.steps_to(0.25) == pytest.approx(math.log(2) / 2e12, rel=1e-9)


def test_directions_without_residual_do_not_diverge():
    curve = curve_of([2.0, 1.0], [0.0, 1.0], learning_rate=1.5)
    assert curve.limit == 0
    assert curve.at(1e6).item() == 0


def test_times_keep_their_shape_and_the_curve_is_frozen():
    curve = curve_of([2.0, 1.0], [1.0, 1.0], learning_rate=0.1)
    assert curve.at(torch.zeros(2, 3)).shape == (2, 3)
    assert curve.at(1).shape == ()
    with pytest.raises(FrozenInstanceError):
        curve.learning_rate = 1.0


@pytest.mark.parametrize("times", [-1, math.nan, math.inf, torch.tensor([0.0, -2.0])])
def test_bad_times_are_refused(times):
    with pytest.raises(ValueError, match="`times` must be finite numbers of at least 0"):
        curve_of([1.0], [1.0], learning_rate=0.1).at(times)


def test_a_loss_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="`loss` must be a number, got nan"):
        curve_of([1.0], [1.0], learning_rate=0.1).steps_to(math.nan)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"learning_rate": 0.0}, ValueError, "`learning_rate` must be a finite number above 0, got 0.0"),
        ({"learning_rate": math.nan}, ValueError, "`learning_rate`"),
        ({"loss": "mse"}, ValueError, "one of 'half_sum', 'sum', 'mean', got 'mse'"),
        ({"dynamics": "sgd"}, ValueError, "'descent' or 'flow', got 'sgd'"),
        ({"kernel": -torch.eye(2)}, ValueError, "positive semi-definite"),
        ({"kernel": torch.tensor([[1.0, 0.5], [0.0, 1.0]])}, ValueError, "symmetric"),
        ({"kernel": torch.eye(2) * torch.inf}, ValueError, "`kernel` must be finite"),
        ({"kernel": torch.ones(2)}, ValueError, "square"),
        ({"residual": torch.ones(3)}, ValueError, "one row per row of `kernel`"),
        ({"residual": torch.tensor([1.0, torch.nan])}, ValueError, "`residual` must be finite"),
        ({"residual": torch.ones(2).long()}, TypeError, "`residual` must be a floating-point"),
    ],
)
def test_bad_arguments_are_refused(change, error, message):
    with pytest.raises(error, match=message):
        predicted_loss(**({"kernel": torch.eye(2), "residual": torch.ones(2), "learning_rate": 0.1} | change))
