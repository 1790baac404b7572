import pytest
import torch
from hypothesis import given, strategies as st

from hf_zoosel.objectives import l2_sp
from tests.objectives.transcriptions.l2_sp import l2_sp_as_written


def tensors(seed, shapes=((2, 3), (4, 2, 1, 2), (5,))):
    generator = torch.Generator().manual_seed(seed)
    return {
        f"layer{i}": torch.randn(shape, generator=generator, dtype=torch.float64) for i, shape in enumerate(shapes)
    }


@given(st.integers(0, 2**31))
def test_equals_the_formula_of_the_paper_gradients_included(seed):
    weights, start = tensors(seed), tensors(seed + 1)
    for w in weights.values():
        w.requires_grad_()
    penalty, expected = l2_sp(weights, start), l2_sp_as_written(weights, start)
    torch.testing.assert_close(penalty, expected, rtol=1e-12, atol=0)
    ours, theirs = (torch.autograd.grad(one, list(weights.values())) for one in (penalty, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@given(st.integers(0, 2**31), st.floats(-3, 3))
def test_grows_with_the_square_of_the_way_gone(seed, way):
    start, direction = tensors(seed), tensors(seed + 1)
    one = l2_sp({name: start[name] + direction[name] for name in start}, start)
    torch.testing.assert_close(
        l2_sp({name: start[name] + way * direction[name] for name in start}, start), way**2 * one
    )


def test_half_precision_weights_are_summed_in_float32():
    weights = {"fc": torch.full((300, 300), 2.0, dtype=torch.float16)}
    assert l2_sp(weights, {"fc": torch.zeros(300, 300, dtype=torch.float16)}) == 180_000  # beyond float16


def test_a_start_that_does_not_fit_is_refused():
    weights = tensors(0)
    with pytest.raises(ValueError, match=r"`start` must hold a tensor .* got none for \['layer2'\] \(1 of 3\)"):
        l2_sp(weights, {name: w for name, w in weights.items() if name != "layer2"})
    with pytest.raises(ValueError, match=r"got none for \['layer0'\]"):
        l2_sp(weights, weights | {"layer0": torch.zeros(3, 2)})
    with pytest.raises(ValueError, match=r"at least 1 parameter"):
        l2_sp({}, weights)


def test_what_else_the_start_holds_does_not_matter():
    weights, start = tensors(0), tensors(1)
    assert l2_sp(weights, start | {"head": torch.ones(9)}) == l2_sp(weights, start)
