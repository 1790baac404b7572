"""The predicted loss against networks that are really trained, by torch.optim.SGD on all samples."""

import math

import pytest
import torch
from torch import nn

from hf_zoosel.linearized import ntk, per_sample_gradients, predicted_loss, signed_targets

LOSSES = {
    "half_sum": lambda r: 0.5 * r.square().sum(),
    "sum": lambda r: r.square().sum(),
    "mean": lambda r: r.square().mean(),
}


def train(module, inputs, targets, *, learning_rate, steps, loss="half_sum"):
    """Return the loss before each step and after the last."""
    optimizer = torch.optim.SGD(module.parameters(), lr=learning_rate)
    losses = []
    for _ in range(steps + 1):
        value = LOSSES[loss](targets - module(inputs))
        losses.append(value.item())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return torch.tensor(losses, dtype=torch.float64)


def problem(n, d, k=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % k
    centres = torch.randn(k, d, dtype=torch.float64, generator=generator)
    x = centres[labels] + torch.randn(n, d, dtype=torch.float64, generator=generator)
    return x, signed_targets(labels)


def linear(d, k=1):
    torch.manual_seed(1)
    return nn.Linear(d, k).double()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("n", "d"), [(12, 5), (6, 20)])
def test_a_linear_model_follows_the_prediction_along_its_whole_curve(n, d, loss):
    x, y = problem(n, d)
    line = linear(d)
    kernel, residual = ntk(line, x), (y - line(x)).detach()
    rate = 0.5 * predicted_loss(kernel, residual, learning_rate=1.0, loss=loss).max_learning_rate
    curve = predicted_loss(kernel, residual, learning_rate=rate, loss=loss)
    losses = train(line, x, y, learning_rate=rate, steps=400, loss=loss)
    torch.testing.assert_close(curve.at(torch.arange(401)), losses, rtol=1e-9, atol=1e-20)
    assert curve.limit == pytest.approx(losses[-1].item(), rel=0.05, abs=1e-6)
    for step in (1, 10, 100):
        assert curve.steps_to(math.sqrt(losses[step] * losses[step - 1])) == step


@pytest.mark.parametrize("loss", LOSSES)
def test_a_linear_head_of_many_classes_follows_the_prediction(loss):
    x, y = problem(15, 8, k=4)
    head = linear(8, 4)
    kernel, residual = ntk(head, x, output=lambda out: out[:, 2]), (y - head(x)).detach()  # the same for every class
    rate = 0.9 * predicted_loss(kernel, residual, learning_rate=1.0, loss=loss).max_learning_rate
    curve = predicted_loss(kernel, residual, learning_rate=rate, loss=loss)
    losses = train(head, x, y, learning_rate=rate, steps=200, loss=loss)
    torch.testing.assert_close(curve.at(torch.arange(201)), losses, rtol=1e-9, atol=1e-20)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_linear_model_follows_the_prediction_under_gradient_flow(loss):
    x, y = problem(10, 4)
    line = linear(4)
    kernel, residual = ntk(line, x), (y - line(x)).detach()
    curve = predicted_loss(kernel, residual, learning_rate=0.3, loss=loss, dynamics="flow")
    step = 0.02 / (0.3 * curve.gain * curve.eigenvalues[-1].item())
    weights = nn.utils.parameters_to_vector(line.parameters()).detach()

    def loss_at(values):
        values = values.detach().requires_grad_()
        value = LOSSES[loss](y - torch.cat([x, torch.ones(10, 1).double()], dim=1) @ values[:, None])
        return value.item(), -0.3 * torch.autograd.grad(value, values)[0]

    for count in range(200):  # Runge-Kutta of order 4 for dw/dt = -eta dL/dw
        value, k1 = loss_at(weights)
        assert curve.at(count * step).item() == pytest.approx(value, rel=1e-8)
        k2 = loss_at(weights + step / 2 * k1)[1]
        k3 = loss_at(weights + step / 2 * k2)[1]
        k4 = loss_at(weights + step * k3)[1]
        weights = weights + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def test_small_steps_of_real_descent_follow_the_flow():
    x, y = problem(10, 4)
    line = linear(4)
    kernel, residual = ntk(line, x), (y - line(x)).detach()
    flow = predicted_loss(kernel, residual, learning_rate=1.0, dynamics="flow")
    rate = 1e-4 / flow.eigenvalues[-1].item()
    losses = train(line, x, y, learning_rate=rate, steps=2000)
    torch.testing.assert_close(flow.at(rate * torch.arange(2001)), losses, rtol=1e-4, atol=0)


def test_real_descent_diverges_just_above_the_greatest_stable_rate_and_not_below():
    x, y = problem(10, 4)
    for fraction, diverges in [(0.99, False), (1.01, True)]:
        line = linear(4)
        curve = predicted_loss(ntk(line, x), (y - line(x)).detach(), learning_rate=1.0, loss="mean")
        losses = train(line, x, y, learning_rate=fraction * curve.max_learning_rate, steps=1000, loss="mean")
        assert bool(losses[-1] > losses[0]) == diverges


def wide(d, outputs=1, width=2000):
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(d, width), nn.Tanh(), nn.Linear(width, outputs)).double()


def test_a_wide_network_follows_the_prediction_within_a_thousandth_until_a_tenth_of_its_loss_is_left():
    x, y = problem(16, 10)
    net = wide(10, width=500)
    kernel, residual = ntk(net, x), (y - net(x)).detach()
    rate = 0.1 * predicted_loss(kernel, residual, learning_rate=1.0).max_learning_rate
    curve = predicted_loss(kernel, residual, learning_rate=rate)
    steps = int(curve.steps_to(0.1 * curve.initial))
    losses = train(net, x, y, learning_rate=rate, steps=steps)
    assert steps > 20
    assert losses[-1] < 0.1 * losses[0] < losses[-2]
    torch.testing.assert_close(curve.at(torch.arange(steps + 1)), losses, rtol=1e-3, atol=0)


def test_a_wide_network_of_three_outputs_follows_the_kernel_of_all_pairs():
    x, y = problem(9, 6, k=3)
    net = wide(6, outputs=3, width=1000)
    gradients = [torch.cat(list(per_sample_gradients(net, x, output=lambda out, c=c: out[:, c]))) for c in range(3)]
    rows = torch.stack(gradients, dim=1).flatten(0, 1)  # (9 * 3, p)
    residual = (y - net(x)).detach().flatten()
    rate = 0.1 * predicted_loss(rows @ rows.T, residual, learning_rate=1.0, loss="mean").max_learning_rate
    curve = predicted_loss(rows @ rows.T, residual, learning_rate=rate, loss="mean")
    steps = int(curve.steps_to(0.3 * curve.initial))
    losses = train(net, x, y, learning_rate=rate, steps=steps, loss="mean")
    torch.testing.assert_close(curve.at(torch.arange(steps + 1)), losses, rtol=1e-3, atol=0)


def test_a_convolutional_network_follows_the_prediction_within_2_percent_until_half_of_its_loss_is_left():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 64, 3), nn.BatchNorm2d(64), nn.GELU(), nn.Conv2d(64, 64, 3), nn.GELU()]
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 64, 1)).double().eval()
    x, y = problem(12, 64)
    x = x.reshape(12, 1, 8, 8)
    kernel, residual = ntk(net, x), (y - net(x)).detach()
    rate = 0.02 * predicted_loss(kernel, residual, learning_rate=1.0).max_learning_rate
    losses = train(net, x, y, learning_rate=rate, steps=20)
    curve = predicted_loss(kernel, residual, learning_rate=rate)
    torch.testing.assert_close(curve.at(torch.arange(21)), losses, rtol=0.02, atol=0)
    assert losses[-1] < 0.55 * losses[0]
    steps = curve.steps_to(0.7 * curve.initial)  # and so the steps to a loss are predicted
    assert steps == pytest.approx(int((losses <= 0.7 * losses[0]).nonzero()[0]), abs=1)


def test_the_prediction_is_second_order_in_the_time_for_a_network_of_any_width():
    x, y = problem(8, 5)

    def error(rate):
        net = wide(5, width=8)
        curve = predicted_loss(ntk(net, x), (y - net(x)).detach(), learning_rate=rate)
        return (curve.at(1) - train(net, x, y, learning_rate=rate, steps=1)[1]).abs().item()

    assert error(1e-4) / error(1e-5) == pytest.approx(100, rel=0.05)
