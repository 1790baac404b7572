import pytest
import torch
from hypothesis import given, strategies as st

from hf_zoosel.objectives import project_distances
from tests.objectives.transcriptions.mars import frobenius_as_written, mars_as_written, projected_as_written

NORMS = {"mars": mars_as_written, "frobenius": frobenius_as_written}


def tensors(seed):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"conv": (3, 2, 2, 2), "depthwise": (4, 1, 3, 3), "fc": (5, 3), "bias": (5,), "scale": (3,)}
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


@pytest.mark.parametrize("norm", NORMS)
@given(seed=st.integers(0, 2**31), radius=st.floats(0.1, 20))
def test_equals_the_projection_of_the_paper(norm, seed, radius):
    weights, start = tensors(seed), tensors(seed + 1)
    expected = {
        name: projected_as_written(w.flatten(1).tolist(), start[name].flatten(1).tolist(), radius, NORMS[norm])
        for name, w in weights.items()
        if w.ndim > 1
    }
    project_distances(weights, start, radius=radius, norm=norm)
    for name, rows in expected.items():
        torch.testing.assert_close(
            weights[name].flatten(1), torch.tensor(rows, dtype=torch.float64), rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize("norm", NORMS)
@given(seed=st.integers(0, 2**31), radius=st.floats(0, 20))
def test_every_layer_ends_within_its_ball_and_stays_where_a_second_call_finds_it(norm, seed, radius):
    weights, start = tensors(seed), tensors(seed + 1)
    project_distances(weights, start, radius=radius, norm=norm)
    once = {name: w.clone() for name, w in weights.items()}
    for name, w in weights.items():
        if w.ndim > 1:
            assert NORMS[norm]((w - start[name]).flatten(1).tolist()) <= radius * (1 + 1e-12) + 1e-12
    project_distances(weights, start, radius=radius, norm=norm)
    torch.testing.assert_close(weights, once, rtol=1e-12, atol=1e-12)


def test_layers_within_the_ball_biases_and_scales_keep_their_bits():
    weights, start = tensors(0), tensors(1)
    before = {name: w.clone() for name, w in weights.items()}
    project_distances(weights, start, radius=1e3)
    assert all(torch.equal(weights[name], before[name]) for name in weights)
    project_distances(weights, start, radius=0.1)
    assert all(torch.equal(weights[name], before[name]) == (before[name].ndim == 1) for name in weights)


def test_a_radius_of_zero_freezes_the_layers():
    weights, start = tensors(0), tensors(1)
    project_distances(weights, start, radius=0)
    assert all(torch.equal(weights[name], start[name]) for name in ("conv", "depthwise", "fc"))
    project_distances(weights, start, radius=0)
    assert all(w.isfinite().all() for w in weights.values())


def test_parameters_are_projected_in_place_and_keep_their_gradient():
    layer = torch.nn.Linear(3, 2)
    weights = dict(layer.named_parameters())
    layer(torch.ones(1, 3)).sum().backward()
    gradient, start = layer.weight.grad.clone(), {name: torch.zeros_like(w) for name, w in weights.items()}
    project_distances(weights, start, radius=0.1)
    assert layer.weight.abs().sum(dim=1).max().item() == pytest.approx(0.1)
    assert layer.weight.requires_grad
    assert layer.weight.is_leaf
    assert torch.equal(layer.weight.grad, gradient)


def test_what_cannot_be_projected_is_refused():
    weights, start = tensors(0), tensors(1)
    for radius in (-1.0, float("nan")):
        with pytest.raises(ValueError, match=r"`radius` must be 0 or more"):
            project_distances(weights, start, radius=radius)
    with pytest.raises(ValueError, match=r"`norm` must be one of \['frobenius', 'mars'\], got 'l2'"):
        project_distances(weights, start, radius=1, norm="l2")
    with pytest.raises(ValueError, match=r"`start` must hold"):
        project_distances(weights, {}, radius=1)


def test_positions_of_an_embedding_are_rows():
    """``(1, n, d)`` as one row would let a whole embedding move no further than a single unit of a layer."""
    start = {"pos_embed": torch.zeros(1, 50, 8), "fc.weight": torch.zeros(50, 8)}
    moved = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    weights = {"pos_embed": moved[None].clone(), "fc.weight": moved.clone()}
    project_distances(weights, start, radius=3.0)
    torch.testing.assert_close(weights["pos_embed"][0], weights["fc.weight"])
    assert not torch.equal(weights["fc.weight"], moved)
