"""Networks that make it hard to look inside: what they cannot give is a reason, what they can is not lost with it."""

import logging
import sys
from itertools import permutations

import pytest
import torch
from torch import nn

from hf_zoosel.features import Runtime
from hf_zoosel.features.forward import _Rows
from hf_zoosel.features.gradients import GradientSketch
from hf_zoosel.features.observers import OBSERVERS
from hf_zoosel.features.store import FeatureStore
from hf_zoosel.tasks import load_task
from hf_zoosel.zoo import resolve
from tests.features.test_extract import CPU, extract, run, to_tensor

GRADIENTS = [part for part in OBSERVERS if part.startswith("gradients")]
EXTRACT = sys.modules[extract.__module__]


class Plain(nn.Module):
    """Maps, mean, head; always the same weights."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv, self.act, self.head = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Linear(8, 4)

    def maps(self, pixels):
        return self.act(self.conv(pixels))

    def pooled(self, pixels):
        return self.maps(pixels).mean(dim=(2, 3))

    def forward(self, pixels):
        return self.head(self.pooled(pixels))


class InPlace(Plain):
    def __init__(self):
        super().__init__()
        self.act = nn.ReLU(inplace=True)


class Functional(Plain):
    def maps(self, pixels):
        return self.act(torch.relu_(self.conv(pixels)))


class Viewed(Plain):
    def maps(self, pixels):
        made = self.conv(pixels)
        made.flatten(1).relu_()  # through a view
        return self.act(made)


def seen(module, task, folder, runtime=CPU, parts=tuple(OBSERVERS)):
    return run([resolve((module, to_tensor), "net")], task, folder, runtime, parts)["net"]


@pytest.fixture
def plain(task, tmp_path):
    return seen(Plain(), task, tmp_path / "plain")


@pytest.mark.parametrize("kind", [InPlace, Functional, Viewed])
def test_an_activation_in_place_changes_neither_gradients_nor_maps(kind, plain, task, tmp_path):
    found = seen(kind(), task, tmp_path)
    assert found.absent == {}
    for part in plain.parts:
        assert torch.equal(found.parts[part], plain.parts[part])


def test_frozen_weights_have_gradients_all_the_same(plain, task, tmp_path):
    found = seen(Plain().requires_grad_(False), task, tmp_path)
    assert found.absent == {}
    for part in GRADIENTS:
        assert torch.equal(found.parts[part], plain.parts[part])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_half_precision_give_gradients_close_to_those_of_full(dtype, plain, task, tmp_path):
    found = seen(Plain().to(dtype), task, tmp_path)
    assert found.absent == {}
    for part in GRADIENTS:
        torch.testing.assert_close(found.parts[part], plain.parts[part], rtol=0.05, atol=0.02)


def test_gradients_under_autocast_are_close_and_of_full_precision(network, task, tmp_path):
    net = resolve(network(), "net")
    full = run([net], task, tmp_path, parts=GRADIENTS)["net"]
    half = run([net], task, tmp_path, Runtime(CPU.device, torch.bfloat16), parts=GRADIENTS)["net"]
    for part in GRADIENTS:
        assert half.parts[part].dtype == torch.float32
        assert torch.cosine_similarity(half.parts[part], full.parts[part]).min() > 0.99


def test_a_callers_inference_mode_costs_no_gradient(network, task, tmp_path):
    plain = run([resolve(network(), "net")], task, tmp_path / "plain", parts=GRADIENTS)["net"]
    with torch.inference_mode():
        found = run([resolve(network(), "net")], task, tmp_path / "inference", parts=GRADIENTS)["net"]
    assert found.absent == {}
    for part in GRADIENTS:
        assert torch.equal(found.parts[part], plain.parts[part])


class NoGrad(Plain):
    @torch.no_grad()
    def forward(self, pixels):
        return super().forward(pixels)


class Inference(Plain):
    @torch.inference_mode()
    def forward(self, pixels):
        return super().forward(pixels)


class Detached(Plain):
    def pooled(self, pixels):
        return super().pooled(pixels).detach()


class ThroughNumpy(Plain):
    def pooled(self, pixels):
        return torch.from_numpy(super().pooled(pixels).numpy())


class Overwritten(Plain):
    def pooled(self, pixels):
        made = super().maps(pixels).sigmoid()
        made *= 2  # the sigmoid's derivative needs what this overwrites
        return made.mean(dim=(2, 3))


class Infinite(Plain):
    def pooled(self, pixels):
        return (super().pooled(pixels) * 0).sqrt()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (NoGrad, "its output cannot be differentiated"),
        (Inference, "its output cannot be differentiated"),
        (Detached, "its output cannot be differentiated"),
        (ThroughNumpy, "it does not run while gradients are recorded (RuntimeError: Can't call numpy()"),
        (Overwritten, "modified by an inplace operation"),
        (Infinite, "its gradients are not finite for 12 of 12 images"),
    ],
)
def test_gradients_that_cannot_be_had_are_a_reason_and_nothing_else_is_lost(kind, reason, task, tmp_path):
    found = seen(kind(), task, tmp_path)
    assert reason in found.absent["gradients"]
    assert "map_statistics" in found.parts
    with torch.no_grad():
        pixels = torch.stack([to_tensor(image.decode()) for image in task.images.encoded(range(12))])
        torch.testing.assert_close(found.features, kind().pooled(pixels))
    again = seen(kind(), task, tmp_path)
    assert again.absent == found.absent


def test_a_network_that_fails_of_its_own_fails_with_its_own_reason(task, tmp_path):
    class Broken(Plain):
        def forward(self, pixels):
            raise ValueError("of its own")

    assert str(seen(Broken(), task, tmp_path)) == "ValueError: of its own"


class Mask(nn.Module):
    def forward(self, maps):
        return maps > 0


class Spectrum(nn.Module):
    def forward(self, maps):
        return torch.fft.fft2(maps)


class Indices(nn.Module):
    def forward(self, maps):
        return maps.argsort(dim=1)


class Empty(nn.Module):
    def forward(self, maps):
        return maps[:, :0]


@pytest.mark.parametrize("layer", [Mask, Spectrum, Indices, Empty])
def test_four_dimensions_that_are_no_feature_maps_are_passed_over(layer, plain, task, tmp_path):
    class Odd(Plain):
        def __init__(self):
            super().__init__()
            self.layer = layer()

        def maps(self, pixels):
            made = super().maps(pixels)
            self.layer(made)
            return made

    found = seen(Odd(), task, tmp_path)
    assert torch.equal(found.parts["map_statistics"], plain.parts["map_statistics"])


class Shrink(nn.Module):
    def forward(self, maps, whole):
        return maps if whole else maps.mean(dim=(2, 3), keepdim=True)


class Changing(Plain):
    """Pools one image early, inside the layer whose maps are looked at."""

    def __init__(self, odd):
        super().__init__()
        self.shrink, self.odd = Shrink(), odd

    def maps(self, pixels):
        return self.shrink(super().maps(pixels), not torch.equal(pixels[0], self.odd))


@pytest.mark.parametrize("rows", [1024, 5])
def test_maps_that_change_their_size_cost_the_maps_alone_in_one_chunk_or_several(
    rows, plain, task, tmp_path, monkeypatch
):
    monkeypatch.setattr(EXTRACT, "_ROWS_PER_CHUNK", rows)
    last = to_tensor(task.images.encoded([11])[0].decode())
    found = seen(Changing(last), task, tmp_path, Runtime(CPU.device, CPU.dtype, batch_size=1))
    assert found.absent == {"map_statistics": "it has no feature maps before its pooling"}
    assert set(found.parts) == {"features", "source_logits", *GRADIENTS}
    torch.testing.assert_close(found.features, plain.features)


def test_a_task_larger_than_memory_gives_the_same_parts_in_blocks(network, task, tmp_path):
    net = resolve((network(), to_tensor), "net")
    whole = run([net], task, tmp_path / "whole", parts=OBSERVERS)["net"]
    tight = Runtime(CPU.device, CPU.dtype, memory=5 * 3 * 48 * 48 * 4)
    blocks = run([net], task, tmp_path / "blocks", tight, parts=OBSERVERS)["net"]
    assert len(list((tmp_path / "blocks").rglob("*.safetensors"))) == 3
    for part in whole.parts:
        torch.testing.assert_close(blocks.parts[part], whole.parts[part], rtol=1e-3, atol=1e-6)


def test_a_wide_last_layer_is_sketched_few_images_at_a_time(network, monkeypatch):
    net = resolve(network(), "net").load()
    pixels = torch.randn(7, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    def rows():
        sketch = GradientSketch("features")
        with torch.no_grad(), sketch.watching(net.module):
            output = net(pixels)
        return sketch.rows(output)

    whole = rows()
    for at_once in (1, 3 * net.module.layer4[0].conv2.weight.numel()):
        monkeypatch.setattr(sys.modules[GradientSketch.__module__], "_AT_ONCE", at_once)
        torch.testing.assert_close(rows(), whole, rtol=1e-4, atol=1e-7)


def test_a_batch_that_is_run_again_takes_the_place_of_its_first_try():
    rows = _Rows("features", 5)
    rows.put(torch.zeros(4, 2), 0)
    rows.put(torch.ones(2, 2), 0)
    rows.put(torch.full((3, 2), 2.0), 2)
    assert rows.finite()[:, 0].tolist() == [1, 1, 2, 2, 2]


def test_a_larger_sample_with_more_parts_finds_what_is_there_and_keeps_the_order(pictures, network, tmp_path):
    net = resolve((network(), to_tensor), "net")
    small, large = load_task(pictures(20), max_per_class=3), load_task(pictures(20), max_per_class=8)
    run([net], small, tmp_path, parts=["map_statistics"])
    run([net], small, tmp_path, parts=["gradients"])
    found = run([net], large, tmp_path, parts=["gradients", "map_statistics"])["net"]
    fresh = run([net], large, tmp_path / "fresh", parts=["gradients", "map_statistics"])["net"]
    assert len(found.rows) == 16
    for part in fresh.parts:
        torch.testing.assert_close(found.parts[part], fresh.parts[part], rtol=1e-3, atol=1e-6)
    back = run([net], small, tmp_path, parts=["gradients"])["net"]
    assert back.seconds < 1
    assert set(back.parts) == {"features", "source_logits", "gradients"}


def test_a_damaged_file_of_one_part_is_computed_again_and_the_others_are_not(network, task, tmp_path, caplog):
    net = resolve((network(), to_tensor), "net")
    run([net], task, tmp_path)
    (features,) = tmp_path.rglob("*.safetensors")
    whole = run([net], task, tmp_path, parts=["gradients"])["net"]
    (gradients,) = set(tmp_path.rglob("*.safetensors")) - {features}
    untouched = features.stat().st_mtime_ns
    gradients.write_bytes(gradients.read_bytes()[:-9])
    with caplog.at_level(logging.WARNING):
        again = run([net], task, tmp_path, parts=["gradients"])["net"]
    assert "damaged" in caplog.text
    assert features.stat().st_mtime_ns == untouched
    assert torch.equal(again.parts["gradients"], whole.parts["gradients"])
    assert torch.equal(again.features, whole.features)


def test_parts_come_in_one_order_however_they_are_asked_for(task, tmp_path):
    orders = []
    for number, parts in enumerate(permutations(["map_statistics", "gradients_logits", "gradients"])):
        orders.append(list(seen(Plain(), task, tmp_path / str(number), parts=set(parts)).parts))
        orders.append(list(seen(Plain(), task, tmp_path / str(number), parts=parts).parts))  # from the cache
    assert all(
        order == ["features", "source_logits", "gradients", "gradients_logits", "map_statistics"] for order in orders
    )


def test_an_entry_keeps_one_row_of_each_image_whichever_chunk_it_came_from(network, task, tmp_path):
    net = resolve((network(), to_tensor), "net")
    for parts in ([], ["gradients"], ["map_statistics", "gradients"]):
        run([net], task, tmp_path, parts=parts)
    digests = [image.digest for image in task.images.encoded(range(len(task)))]
    chunks = FeatureStore(tmp_path).entry(net, "float32").read(digests, ["gradients"])
    assert sum(len(chunk.digests) for chunk in chunks) == len(task)
