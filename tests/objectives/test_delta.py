import pytest
import torch
from hypothesis import example, given, strategies as st

from hf_zoosel.objectives import channel_weights, delta, measure_channel_weights
from tests.objectives.transcriptions.delta import channel_weights_as_written, delta_as_written


def layers(seed, shapes=((3, 2, 2, 3), (3, 4, 1, 1))):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


@given(st.integers(0, 2**31), st.booleans())
def test_equals_the_formula_gradients_included(seed, attention):
    maps, start_maps = [one.requires_grad_() for one in layers(seed)], layers(seed + 1)
    weights = [one.softmax(dim=0) for one in layers(seed + 2, ((2,), (4,)))] if attention else None
    penalty, expected = delta(maps, start_maps, weights), delta_as_written(maps, start_maps, weights)
    torch.testing.assert_close(penalty, expected, rtol=1e-11, atol=0)
    ours, theirs = (torch.autograd.grad(one, maps) for one in (penalty, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


@given(st.integers(0, 2**31))
def test_equal_attention_is_no_attention(seed):
    maps, start_maps = layers(seed), layers(seed + 1)
    equal = [torch.full((2,), 1 / 2), torch.full((4,), 1 / 4)]
    torch.testing.assert_close(delta(maps, start_maps, equal), delta(maps, start_maps))


@given(st.integers(0, 2**31))
def test_the_batch_may_be_split_over_processes(seed):
    maps, start_maps = layers(seed, ((4, 2, 2, 3),)), layers(seed + 1, ((4, 2, 2, 3),))
    halves = [delta([maps[0][rows]], [start_maps[0][rows]]) for rows in (slice(2), slice(2, 4))]
    torch.testing.assert_close(sum(halves) / 2, delta(maps, start_maps))


def test_a_channel_without_attention_is_free():
    maps, start_maps = layers(0), layers(1)
    moved = [maps[0].clone(), maps[1]]
    moved[0][:, 1] += 5
    weights = [torch.tensor([1.0, 0.0]), torch.full((4,), 1 / 4)]
    assert delta(moved, start_maps, weights) == delta(maps, start_maps, weights)


def test_maps_in_half_precision_do_not_overflow():
    maps = [torch.full((2, 3, 8, 8), 400.0, dtype=torch.float16, requires_grad=True)]
    penalty = delta(maps, [torch.zeros(2, 3, 8, 8, dtype=torch.float16)])
    assert penalty == 3 * 400**2 / 2
    assert torch.autograd.grad(penalty, maps)[0].isfinite().all()


def test_no_gradient_reaches_the_start_network():
    maps, start_maps = [one.requires_grad_() for one in layers(0)], [one.requires_grad_() for one in layers(1)]
    delta(maps, start_maps).backward()
    assert all(one.grad is None for one in start_maps)


@given(st.lists(st.floats(0, 5), min_size=2, max_size=9, unique=True), st.floats(0, 2))
@example([0.0, 4.999999999999999, 0.5, 5.0], 0.0)  # two weights that round to one
def test_attention_is_that_of_the_authors_code(losses, loss):
    if max(losses) - min(losses) > 1e-6:
        weights = channel_weights(torch.tensor(losses, dtype=torch.float64), loss)
        assert weights.tolist() == pytest.approx(channel_weights_as_written(losses, loss), rel=1e-8)
        assert weights[losses.index(max(losses))] == weights.max()


@pytest.mark.parametrize("losses", [[0.7], [2.0, 2.0, 2.0]])
def test_channels_that_matter_the_same_weigh_the_same(losses):
    assert channel_weights(torch.tensor(losses), 1.0).tolist() == pytest.approx([1 / len(losses)] * len(losses))


def test_measuring_asks_for_each_channel_once_and_for_the_whole_network():
    asked = []

    def loss_without(channel):
        asked.append(channel)
        return torch.tensor(1.0, requires_grad=True) if channel is None else 1 + channel / 2

    weights = measure_channel_weights(loss_without, 4)
    assert sorted(asked[:4]) == [0, 1, 2, 3]
    assert asked[4:] == [None]
    torch.testing.assert_close(weights, channel_weights(torch.tensor([1.0, 1.5, 2.0, 2.5]), 1.0))
    assert not weights.requires_grad


def test_layers_that_do_not_match_are_refused():
    maps = layers(0)
    for other in (maps[:1], [maps[0], maps[1][:2]], []):
        with pytest.raises(ValueError, match=r"must be the same layers, at least 1"):
            delta(maps, other)
    with pytest.raises(ValueError, match=r"must be the same layers, at least 1"):
        delta([], [])
    with pytest.raises(ValueError, match=r"must hold \(n_channels,\) for each layer, got \[\(3,\), \(4,\)\]"):
        delta(maps, maps, [torch.ones(3), torch.ones(4)])


def test_losses_that_say_nothing_are_refused():
    for shape in ((), (0,), (2, 2)):
        with pytest.raises(ValueError, match=r"must be \(n_channels,\)"):
            channel_weights(torch.ones(shape), 1.0)
    with pytest.raises(ValueError, match=r"must be finite"):
        channel_weights(torch.tensor([1.0, torch.nan]), 1.0)
    with pytest.raises(ValueError, match=r"must be finite"):
        channel_weights(torch.ones(2), torch.inf)
