"""What every entry of REGULARIZERS promises."""

import math

import pytest
import torch
from torch import nn

from hf_zoosel.objectives import REGULARIZERS, Regularizer, get_regularizer, l2_sp
from hf_zoosel.objectives.registry import RegularizerNeed

TRAINED = {"weights", "features", "maps", "kept_logits"}  # what gradients flow to
ZERO_AT_START = {"l2_sp", "delta", "delta_attention", "lwf"}


def of_kind(kind):
    table = {name: one for name, one in REGULARIZERS.items() if one.kind == kind}
    return pytest.mark.parametrize("regularizer", table.values(), ids=table)


def arguments(regularizer, dtype=torch.float64, *, at_start=False):
    """Everything the regulariser asks for; at the start, what is trained equals what it started from."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    start, start_maps, start_logits = (
        [noise(4, 3, 1, 1), noise(4)],
        [noise(5, 3, 2, 2), noise(5, 4, 1, 1)],
        noise(5, 7),
    )
    way = 0 if at_start else 1
    made = {
        "start": dict(zip("ab", start, strict=True)),
        "weights": {name: w + way * noise(*w.shape) for name, w in zip("ab", start, strict=True)},
        "features": noise(5, 6),
        "start_maps": start_maps,
        "maps": [one + way * noise(*one.shape) for one in start_maps],
        "start_logits": start_logits,
        "kept_logits": start_logits + way * noise(5, 7),
        "channel_weights": [noise(3).softmax(dim=0), noise(4).softmax(dim=0)],
    }
    return {need: made[need] for need in regularizer.needs}


def leaves(value):
    if isinstance(value, torch.Tensor):
        return [value]
    return list(value.values()) if isinstance(value, dict) else list(value)


def trained(given):
    return [leaf.requires_grad_() for need in given if need in TRAINED for leaf in leaves(given[need])]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@of_kind("penalty")
def test_a_penalty_is_a_finite_scalar_whose_gradient_reaches_what_is_trained_and_nothing_else(regularizer, dtype):
    given = arguments(regularizer, dtype)
    for value in given.values():
        for leaf in leaves(value):
            leaf.requires_grad_()
    penalty = regularizer.fn(**given)
    assert penalty.shape == ()
    assert penalty.dtype == torch.promote_types(dtype, torch.float32)
    assert 0 < penalty < math.inf
    penalty.backward()
    for need, value in given.items():
        for leaf in leaves(value):
            assert (leaf.grad is not None) == (need in TRAINED)
            assert leaf.grad is None or (leaf.grad.isfinite().all() and leaf.grad.abs().sum() > 0)


@of_kind("penalty")
def test_a_penalty_has_the_gradient_of_its_value(regularizer):
    given = arguments(regularizer)
    moved = trained(given)
    gradients = torch.autograd.grad(regularizer.fn(**given), moved)
    generator = torch.Generator().manual_seed(1)
    ways = [torch.randn(one.shape, generator=generator, dtype=one.dtype) for one in moved]
    values = []
    for step in (1e-5, -2e-5):
        with torch.no_grad():
            for one, way in zip(moved, ways, strict=True):
                one += step * way
            values.append(regularizer.fn(**given).item())
    slope = sum((g * way).sum().item() for g, way in zip(gradients, ways, strict=True))
    assert (values[0] - values[1]) / 2e-5 == pytest.approx(slope, rel=1e-6, abs=1e-8)


@of_kind("penalty")
def test_a_penalty_on_the_way_gone_is_zero_at_the_start_with_a_zero_gradient(regularizer):
    given = arguments(regularizer, at_start=True)
    moved = trained(given)
    penalty = regularizer.fn(**given)
    if regularizer.name in ZERO_AT_START:
        assert penalty.item() == pytest.approx(0, abs=1e-15)
        assert all(g.abs().max() < 1e-12 for g in torch.autograd.grad(penalty, moved))
    else:
        assert penalty > 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@of_kind("penalty")
def test_a_penalty_leaves_its_inputs_as_they_were_and_is_the_same_each_time(regularizer, dtype):
    given = arguments(regularizer, dtype)
    before = [leaf.clone() for value in given.values() for leaf in leaves(value)]
    assert regularizer.fn(**given) == regularizer.fn(**given)
    after = [leaf for value in given.values() for leaf in leaves(value)]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@of_kind("penalty")
def test_float32_gives_what_float64_gives(regularizer):
    exact = regularizer.fn(**arguments(regularizer))
    assert regularizer.fn(**arguments(regularizer, torch.float32)).item() == pytest.approx(exact.item(), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@of_kind("projection")
def test_a_projection_comes_nearer_to_the_start_and_leaves_the_start_alone(regularizer, dtype):
    given = arguments(regularizer, dtype)
    moved, start = trained(given), {name: w.clone() for name, w in given["start"].items()}
    before = l2_sp(**given)
    assert regularizer.fn(**given, radius=0.5) is None
    assert l2_sp(**given) < before
    assert all(torch.equal(given["start"][name], w) for name, w in start.items())
    assert all(one.dtype == dtype and one.requires_grad and one.grad is None for one in moved)


@of_kind("projection")
def test_a_projection_changes_nothing_at_the_start(regularizer):
    given = arguments(regularizer, at_start=True)
    regularizer.fn(**given, radius=0.5)
    assert all(torch.equal(w, given["start"][name]) for name, w in given["weights"].items())


@of_kind("layers")
def test_layers_change_training_alone_and_can_be_taken_out_again(regularizer):
    model = nn.Sequential(nn.Conv2d(3, 32, 1), nn.BatchNorm2d(32)).eval()
    pixels, keys = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0)), list(model.state_dict())
    evaluated = model(pixels)
    regularizer.fn(model, regularizer.strength)
    assert torch.equal(model(pixels), evaluated)
    with torch.random.fork_rng(devices=[]):
        assert not torch.equal(model.train()(pixels), model(pixels))
    regularizer.inverse(model)
    assert torch.equal(model.train()(pixels), model(pixels))
    assert list(model.state_dict()) == keys


def test_every_need_is_asked_for_by_someone():
    asked = {need for regularizer in REGULARIZERS.values() for need in regularizer.needs}
    assert asked == set(RegularizerNeed.__args__)


def test_entries_are_found_by_their_name():
    assert all(get_regularizer(name) is one and one.name == name for name, one in REGULARIZERS.items())
    assert all(one.strength > 0 and one.reference for one in REGULARIZERS.values())


def test_an_unknown_name_is_refused_with_the_nearest_one():
    with pytest.raises(ValueError, match=r"`regularizers` must be some of .* got 'L2SP'. Did you mean 'l2_sp'\?"):
        get_regularizer("L2SP")


def test_an_entry_that_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match=r"`kind` must be one of"):
        Regularizer("x", l2_sp, "prior", (), 1.0, "none")
    with pytest.raises(ValueError, match=r"`needs` must be a tuple of some of .* got \['weight'\]"):
        Regularizer("x", l2_sp, "penalty", ("weight",), 1.0, "none")
    with pytest.raises(ValueError, match=r'`inverse` must be given for kind "layers" and no other, got None'):
        Regularizer("x", l2_sp, "layers", (), 1.0, "none")
