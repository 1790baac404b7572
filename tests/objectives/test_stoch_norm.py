from copy import deepcopy

import pytest
import timm
import torch
from torch import nn

from hf_zoosel.objectives import StochNorm1d, StochNorm2d, replace_norms, restore_norms
from tests.objectives.transcriptions.stoch_norm import stoch_norm_as_written

NETWORKS = ["test_resnet", "test_efficientnet", "tf_efficientnet_lite0"]
STOCHASTIC = (StochNorm1d, StochNorm2d)


@pytest.fixture(autouse=True)
def _global_state_is_put_back():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def worn(layer):
    """As after some training: nothing is at its initial value."""
    with torch.no_grad():
        for tensor in (layer.weight, layer.bias, layer.running_mean):
            tensor.normal_()
        layer.running_var.uniform_(0.5, 2)
    return layer.double()


def network(name):
    model = timm.create_model(name, num_classes=4)
    model.train()
    with torch.no_grad():
        model(torch.randn(8, 3, 32, 32))  # moves the statistics
    return model


def norms(module):
    return [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]


def norm_of(shape):
    return worn(nn.BatchNorm2d(shape[1]) if len(shape) == 4 else nn.BatchNorm1d(shape[1]))


@pytest.mark.parametrize("probability", [0, 0.5, 1])
@pytest.mark.parametrize("shape", [(4, 6), (3, 6, 2), (3, 6, 2, 3)])
def test_equals_the_two_branches_of_the_paper_gradients_and_statistics_included(shape, probability):
    layer = norm_of(shape)
    before = deepcopy(layer)
    replace_norms(layer, probability)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(3)
    from_moving = torch.rand(6) < probability
    torch.manual_seed(3)
    y = layer(x)
    expected, mean, variance = stoch_norm_as_written(x, before, from_moving)
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(layer.running_mean, mean, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(layer.running_var, variance, rtol=1e-10, atol=1e-10)
    signal = torch.randn(shape, dtype=torch.float64)
    ours = torch.autograd.grad(y, (x, layer.weight, layer.bias), signal)
    theirs = torch.autograd.grad(expected, (x, before.weight, before.bias), signal)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_evaluates_as_before_keeps_its_keys_and_gets_its_layers_back(name):
    model = network(name).eval()
    pixels, kinds, keys = torch.randn(2, 3, 32, 32), [type(m) for m in model.modules()], list(model.state_dict())
    parameters = list(model.parameters())
    with torch.no_grad():
        before = model(pixels)
        replace_norms(model, 0.5)
        assert all(isinstance(layer, STOCHASTIC) for layer in norms(model))
        assert torch.equal(model(pixels), before)
        assert list(model.state_dict()) == keys
        restore_norms(model)
        assert torch.equal(model(pixels), before)
    assert [type(m) for m in model.modules()] == kinds
    assert all(one is other for one, other in zip(model.parameters(), parameters, strict=True))
    assert not any("probability" in vars(layer) or "plain" in vars(layer) for layer in norms(model))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_trained_network_loads_into_a_plain_one_and_evaluates_the_same(name):
    model, plain = network(name), network(name)
    plain.load_state_dict(model.state_dict())
    replace_norms(model, 0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(2):
        model.train()(torch.randn(8, 3, 32, 32)).square().mean().backward()
        optimizer.step()
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        stochastic = model.eval()(pixels)
        copied = deepcopy(model)
        restore_norms(copied)
        assert torch.equal(copied(pixels), stochastic)
        assert not torch.equal(plain.eval()(pixels), stochastic)
        plain.load_state_dict(model.state_dict())
        assert torch.equal(plain(pixels), stochastic)
    assert all(isinstance(layer, STOCHASTIC) for layer in norms(model))  # a copy is restored by itself


@pytest.mark.parametrize("name", NETWORKS)
def test_at_probability_zero_training_is_plain_training_and_at_one_it_normalises_as_in_evaluation(name):
    torch.manual_seed(5)
    model = network(name)
    pixels, plain = torch.randn(8, 3, 32, 32), deepcopy(model)
    replace_norms(model, 0)
    with torch.no_grad():
        torch.testing.assert_close(model(pixels), plain(pixels))
        torch.testing.assert_close(model.state_dict(), plain.state_dict())
        replace_norms(model, 1)  # again: only the probability changes
        still = deepcopy(plain).eval()
        torch.testing.assert_close(model(pixels), still(pixels))
    assert model.state_dict()[next(k for k in model.state_dict() if k.endswith("num_batches_tracked"))] == 3


def test_the_draw_is_anew_each_step_and_hangs_on_the_default_generator_alone():
    layer = norm_of((3, 64))
    replace_norms(layer, 0.5)
    layer.momentum = 0.0  # the statistics stay
    x = torch.randn(4, 64, dtype=torch.float64)
    outputs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        outputs.append(layer(x))
    assert torch.equal(outputs[0], outputs[1])
    changed = (outputs[0] != outputs[2]).any(dim=0)  # whole channels
    assert 10 < changed.sum() < 54


def test_hooks_and_shared_layers_survive():
    norm, seen = nn.BatchNorm2d(3), []
    norm.register_forward_hook(lambda module, args, output: seen.append(type(module)))
    model = nn.Sequential(norm, nn.ReLU(), norm)
    replace_norms(model, 0.5)
    assert model[0] is model[2] is norm
    model(torch.randn(2, 3, 4, 4))
    assert seen == [StochNorm2d, StochNorm2d]


def test_a_cumulative_average_is_kept():
    layer = nn.BatchNorm1d(3, momentum=None)
    replace_norms(layer, 0.5)
    batches = torch.randn(3, 20, 3)
    for batch in batches:
        layer(batch)
    torch.testing.assert_close(layer.running_mean, batches.mean(dim=(0, 1)))


def test_layers_without_statistics_and_frozen_layers_behave_as_ever():
    loose, frozen = nn.BatchNorm2d(3, track_running_stats=False), nn.BatchNorm2d(3).eval()
    model = nn.Sequential(loose, frozen)
    replace_norms(model, 0.5)
    x = torch.randn(4, 3, 2, 2)
    assert type(loose) is nn.BatchNorm2d
    assert torch.equal(model(x), nn.BatchNorm2d(3).eval()(nn.BatchNorm2d(3)(x)))
    assert frozen.num_batches_tracked == 0


def test_networks_without_batch_normalisation_are_refused():
    with pytest.raises(ValueError, match=r"must have batch normalisation that tracks statistics, got a LayerNorm"):
        replace_norms(nn.LayerNorm(3), 0.5)


def test_layers_with_a_forward_of_their_own_are_refused_before_any_is_replaced():
    class Doubled(nn.BatchNorm2d):
        def forward(self, x):
            return 2 * super().forward(x)

    model = nn.Sequential(nn.BatchNorm2d(3), Doubled(3))
    with pytest.raises(ValueError, match=r"Doubled with a forward of its own"):
        replace_norms(model, 0.5)
    assert type(model[0]) is nn.BatchNorm2d


@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan")])
def test_what_is_no_probability_is_refused(probability):
    with pytest.raises(ValueError, match=r"`probability` must be in \[0, 1\]"):
        replace_norms(nn.BatchNorm2d(3), probability)
