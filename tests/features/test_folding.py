import pytest
import timm
import torch
from torch import nn

from hf_zoosel.features.folding import norms_folded
from hf_zoosel.zoo import Network

IMAGES = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def trained(module):
    """Normalisations as after training: no statistic is 0 or 1."""
    generator = torch.Generator().manual_seed(1)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight, layer.running_var):
                tensor.data.uniform_(0.5, 2, generator=generator)
            for tensor in (layer.bias, layer.running_mean):
                tensor.data.normal_(generator=generator)
    return module


class Net(nn.Module):
    """A convolution, what is done to its result, a normalisation; ``between`` decides what."""

    def __init__(self, between):
        super().__init__()
        self.conv, self.norm, self.between = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), between
        self.head = nn.Linear(8, 5)

    def forward(self, pixels):
        return self.head(self.between(self.conv, self.norm, pixels).mean(dim=(2, 3)))


def folded_and_not(module):
    network = Network(trained(module.double()))
    with torch.inference_mode():
        before = network(IMAGES)
        with norms_folded(network, IMAGES[:1]) as n_folded:
            during = network(IMAGES)
        after = network(IMAGES)
    assert torch.equal(before.features, after.features)
    assert torch.equal(before.logits, after.logits)
    for a, b in ((before.features, during.features), (before.logits, during.logits)):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12 * a.abs().max().item())
    return n_folded


@pytest.mark.parametrize(
    ("architecture", "n_norms"),
    [
        ("resnet10t", 14),
        ("tf_efficientnet_lite0", 49),  # convolutions with "same" padding, normalisations with an activation
        ("mobilenetv2_100", 52),
        ("regnetx_002", 44),
        ("repvgg_a0", 44),  # some normalise the block's input: no convolution to fold into
        ("vit_tiny_patch16_224", 0),
    ],
)
def test_output_stays_the_same_on_networks_of_timm(architecture, n_norms):
    options = {"img_size": 64} if architecture.startswith("vit") else {}
    module = timm.create_model(architecture, num_classes=7, **options)
    assert folded_and_not(module) == n_norms


def test_a_plain_pair_is_folded():
    assert folded_and_not(Net(lambda conv, norm, x: norm(conv(x)))) == 1


@pytest.mark.parametrize(
    "between",
    [
        lambda conv, norm, x: norm(conv(x).relu()),
        lambda conv, norm, x: norm(conv(x).relu_()),  # the same tensor object, changed
        lambda conv, norm, x: (out := conv(x)) + norm(out),
        lambda conv, norm, x: norm(conv(x)) + norm(conv(x.flip(3))),
        lambda conv, norm, x: norm(conv(x)) + conv(x.flip(3)),
        lambda conv, norm, x: norm(norm(conv(x))),
        lambda conv, norm, x: conv(x) + norm.bias.view(-1, 1, 1),
    ],
)
def test_what_is_no_plain_pair_is_left(between):
    assert folded_and_not(Net(between)) == 0


@pytest.mark.parametrize("watched", ["conv", "norm"])
def test_layers_somebody_watches_are_left(watched):
    module, seen = Net(lambda conv, norm, x: norm(conv(x))), []
    getattr(module, watched).register_forward_hook(lambda *call: seen.append(call[2].mean().item()))
    assert folded_and_not(module) == 0
    assert len(seen) >= 3


def test_norms_without_statistics_or_of_other_kinds_are_left():
    class Louder(nn.BatchNorm2d):
        def forward(self, pixels):
            return 2 * super().forward(pixels)

    for norm in (nn.BatchNorm2d(8, track_running_stats=False), Louder(8), nn.GroupNorm(2, 8)):
        module = Net(lambda conv, norm, x: norm(conv(x)))
        module.norm = norm
        network = Network(module.double())
        with norms_folded(network, IMAGES[:1]) as n_folded:
            assert n_folded == 0


def test_everything_is_as_it_was_when_a_pass_fails():
    module = trained(Net(lambda conv, norm, x: norm(conv(x)))).double()
    tensors = dict(module.state_dict(keep_vars=True))

    def fail_while_folded():
        with norms_folded(Network(module), IMAGES[:1]) as n_folded:
            assert n_folded == 1
            assert module.conv.weight is not tensors["conv.weight"]
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail_while_folded()
    assert "forward" not in module.norm.__dict__
    now = module.state_dict(keep_vars=True)
    assert {name: id(tensor) for name, tensor in now.items()} == {name: id(tensors[name]) for name in now}
