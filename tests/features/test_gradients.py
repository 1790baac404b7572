from itertools import pairwise

import numpy as np
import pytest
import timm
import torch
from torch import nn

from hf_zoosel.features.gradients import SKETCH_SIZE, GradientSketch, _Sketch, weight_gradients
from hf_zoosel.features.layers import AbsentPartError
from hf_zoosel.zoo import Network, resolve
from tests.features.test_extract import Counting, run, to_tensor

LAST = {
    "test_resnet": "layer4.0.downsample.1",
    "test_vit": "blocks.5.mlp.fc2",
    "test_convnext": "stages.3.blocks.1.mlp.fc2",
    "test_efficientnet": "conv_head",
}


def watched(network, pixels, sketch):
    """The rows of a sketch: the first image finds the layer, the others follow as a batch."""
    rows = []
    for batch in (pixels[:1], pixels[1:]):
        with torch.no_grad():
            with sketch.watching(network.module):
                output = network(batch)
            rows.append(sketch.rows(output))
            assert not torch.is_grad_enabled()
    return torch.cat(rows)


def by_autograd(network, pixels, weight, scalar):
    """One image at a time, through the whole network."""
    rows = []
    for image in pixels:
        output = network(image[None])
        (gradient,) = torch.autograd.grad(scalar(output), weight)
        rows.append(gradient.flatten())
    return torch.stack(rows)


SCALARS = {
    "features": lambda output: output.features.mean(),
    "logits": lambda output: output.logits.sum(),
}


@pytest.mark.parametrize("of", SCALARS)
@pytest.mark.parametrize("architecture", LAST)
def test_gradients_are_those_of_the_last_layer_that_sees_positions(architecture, of, network):
    module = network(architecture=architecture)
    layer = dict(module.named_modules())[LAST[architecture]]
    watching, plain = Network(module), Network(module)
    pixels = torch.randn(5, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    expected = by_autograd(plain, pixels, layer.weight, SCALARS[of])
    sketch = GradientSketch(of)
    rows = watched(watching, pixels, sketch)
    assert rows.abs().max() > 0
    torch.testing.assert_close(rows, _Sketch(expected.shape[1], 0, rows.device)(expected), rtol=1e-3, atol=1e-6)
    assert rows.shape[1] == min(expected.shape[1], SKETCH_SIZE)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(3, 4, 3, stride=2, padding=1), (3, 9, 9)),
        (nn.Conv2d(4, 6, 3, padding="same", padding_mode="reflect", groups=2), (4, 7, 5)),
        (nn.Conv2d(4, 5, 1), (4, 6, 6)),
        (nn.Conv2d(4, 5, 1, stride=2), (4, 6, 6)),
        (timm.layers.Conv2dSame(3, 5, 3, stride=2), (3, 8, 8)),
        (nn.Linear(7, 3), (5, 7)),
        (nn.Linear(7, 3), (2, 5, 7)),
    ],
)
def test_every_kind_of_layer_gives_each_images_own_gradient(layer, shape):
    inputs = torch.randn(3, *shape)
    outputs = layer(inputs)
    signals = torch.randn_like(outputs)
    expected = [
        torch.autograd.grad((layer(x[None])[0] * s).sum(), layer.weight)[0].flatten()
        for x, s in zip(inputs, signals, strict=True)
    ]
    torch.testing.assert_close(weight_gradients(layer, inputs, signals), torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_the_sketch_keeps_inner_products_as_well_as_a_dense_projection_would():
    vectors = torch.randn(40, 123_457, generator=torch.Generator().manual_seed(0)) + 0.3
    exact = vectors @ vectors.T
    errors = [
        (sketched @ sketched.T - exact) / (vectors.norm(dim=1)[:, None] * vectors.norm(dim=1))
        for sketched in (_Sketch(vectors.shape[1], seed, vectors.device)(vectors) for seed in range(5))
    ]
    off_diagonal = torch.stack(errors)[:, ~torch.eye(40, dtype=torch.bool)]
    assert off_diagonal.std() < 1.5 / SKETCH_SIZE**0.5
    assert abs(off_diagonal.mean()) < 0.02


def test_the_seed_decides_and_the_same_seed_gives_the_same_sketch():
    gradients = torch.randn(2, 30_001)
    one, same, other = (_Sketch(30_001, seed, gradients.device)(gradients) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_all_three_scalars_come_from_one_pass_and_leave_features_as_they_are(task, network, tmp_path):
    net = resolve(network(), "net")
    plain = run([net], task, tmp_path / "plain")["net"]
    parts = ["gradients", "gradients_logits", "gradients_random", "map_statistics"]
    full = run([net], task, tmp_path / "full", parts=parts)["net"]
    assert set(full.parts) == {"features", "source_logits", *parts}
    torch.testing.assert_close(full.features, plain.features, rtol=1e-4, atol=1e-5)
    for one, other in pairwise(parts[:3]):
        assert not torch.allclose(full.parts[one], full.parts[other])
    for part in parts[:3]:
        alone = run([net], task, tmp_path / part, parts=[part])["net"]
        torch.testing.assert_close(alone.parts[part], full.parts[part], rtol=1e-3, atol=1e-6)


def test_each_image_goes_through_once_whatever_is_asked_for(task, tmp_path):
    class Convolving(Counting):
        def __init__(self, seen=None):
            super().__init__(seen)
            self.conv = nn.Conv2d(3, 3, 3)

        def __deepcopy__(self, memo):
            copy = Convolving(self.seen)
            copy.load_state_dict(self.state_dict())
            return copy

        def forward(self, pixels):
            return super().forward(torch.relu_(self.conv(pixels)))

    net = Convolving()
    candidate = resolve((net, to_tensor), "net")
    parts = ["gradients", "gradients_logits", "map_statistics"]
    first = run([candidate], task, tmp_path, parts=parts)["net"]
    assert sum(net.seen) == len(task)
    again = run([candidate], task, tmp_path, parts=parts)["net"]
    assert sum(net.seen) == len(task)
    assert torch.equal(first.parts["gradients"], again.parts["gradients"])


def test_a_later_metric_runs_the_network_for_the_new_part_alone(task, network, tmp_path):
    net = resolve(network(), "net")
    run([net], task, tmp_path)
    both = run([net], task, tmp_path, parts=["gradients"])["net"]
    assert set(both.parts) == {"features", "source_logits", "gradients"}
    files = list(tmp_path.rglob("*.safetensors"))
    assert len(files) == 2


def test_a_network_without_positions_or_head_says_so_and_is_not_asked_again(task, tmp_path):
    net = Counting()
    candidate = resolve((net, to_tensor), "net")
    for _ in range(2):
        outcome = run([candidate], task, tmp_path, parts=["gradients", "map_statistics"])["net"]
        assert outcome.absent == {
            "gradients": "it has no convolution or linear layer that sees positions",
            "map_statistics": "it has no feature maps before its pooling",
        }
        assert len(outcome.rows) == len(task)
    assert sum(net.seen) == len(task)


def test_a_layer_that_cannot_be_differentiated_costs_that_part_only(task, tmp_path):
    class Stubborn(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

        def forward(self, pixels):
            with torch.no_grad():
                return self.head(self.conv(pixels).mean(dim=(2, 3)))

    outcome = run([resolve((Stubborn(), to_tensor), "net")], task, tmp_path, parts=["gradients"])["net"]
    assert "gradients" in outcome.absent
    assert outcome.features.shape == (12, 4)


def test_an_unknown_scalar_is_refused():
    with pytest.raises(ValueError, match=r"`of` must be one of \['features', 'logits', 'random'\], got 'loss'"):
        GradientSketch("loss")


def test_a_sketch_asked_for_without_a_pass_says_so(network):
    with pytest.raises(AbsentPartError):
        GradientSketch("features").rows(Network(network())(torch.randn(1, 3, 64, 64)))


def test_gradients_are_kept_where_they_are_short(network):
    assert np.prod(network().layer4[0].conv2.weight.shape) > SKETCH_SIZE
    short = torch.randn(3, 500)
    assert torch.equal(_Sketch(500, 0, short.device)(short), short)
