import pytest
import torch
from torch import nn

from hf_zoosel.training.heads import Heads, HeadsOutput, averaged


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("like", "shape"),
    [
        (nn.Linear(6, 4), (2, 6)),
        (nn.Linear(6, 4, bias=False), (2, 6)),
        (nn.Conv2d(6, 4, 1), (2, 6, 1, 1)),
        (nn.Linear(6, 4, dtype=torch.float64), (2, 6)),
    ],
    ids=["linear", "without bias", "1 x 1 convolution", "float64"],
)
def test_new_heads_are_layers_of_the_classifiers_kind(like, shape):
    heads = Heads(like, 3, n_source=5, keep=True)
    x = torch.randn(shape, dtype=like.weight.dtype)
    returned, aside = heads(input=x), heads.take()
    for layer, n in ((heads.target, 3), (heads.source, 5)):
        assert type(layer) is type(like)
        assert layer.weight.dtype == like.weight.dtype
        assert layer.weight.shape == (n, *like.weight.shape[1:])
        assert (layer.bias is None) == (like.bias is None)
    assert returned.shape == (2, 3, *shape[2:])
    assert torch.equal(aside.target, returned.flatten(1))
    assert torch.equal(aside.source, heads.source(x).flatten(1))
    assert torch.equal(aside.kept, like(x).flatten(1))
    assert torch.equal(aside.features, x.flatten(1))


def test_weights_are_drawn_from_the_given_generator_alone():
    like = nn.Linear(400, 4)
    before = torch.get_rng_state()
    first, again, other = (Heads(like, 50, n_source=5, generator=seeded(s)) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.target.weight, again.target.weight)
    assert torch.equal(first.source.weight, again.source.weight)
    assert not torch.equal(first.target.weight, other.target.weight)
    assert first.target.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert Heads(like, 50, std=0.03).target.weight.std().item() == pytest.approx(0.03, rel=0.02)
    assert not first.target.bias.any()


def test_the_target_head_does_not_depend_on_the_heads_beside_it():
    like = nn.Linear(6, 4)
    alone, beside = Heads(like, 3, generator=seeded()), Heads(like, 3, n_source=5, keep=True, generator=seeded())
    assert torch.equal(alone.target.weight, beside.target.weight)


def test_what_was_set_aside_is_given_once_so_that_no_graph_is_kept():
    heads = Heads(nn.Linear(6, 4), 3)
    heads(torch.randn(2, 6))
    assert heads.take().target.requires_grad
    with pytest.raises(AssertionError):
        heads.take()


def test_heads_are_averaged_and_features_of_different_width_joined():
    def output(fill, width):
        return HeadsOutput(torch.full((2, 3), fill), None, torch.full((2, 4), fill), torch.full((2, width), fill))

    alike = averaged([output(1.0, 5), output(3.0, 5)])
    assert torch.equal(alike.target, torch.full((2, 3), 2.0))
    assert torch.equal(alike.kept, torch.full((2, 4), 2.0))
    assert torch.equal(alike.features, torch.full((2, 5), 2.0))
    assert alike.source is None
    assert averaged([output(1.0, 5), output(3.0, 2)]).features.shape == (2, 7)
