import importlib
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torchvision.transforms import v2
from transformers import ViTImageProcessor

from hf_zoosel.zoo import CandidateError, resolve

TO_TENSOR = v2.Compose([v2.Resize((16, 16)), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])


class Tiny(nn.Module):
    """Scales, pools, classifies; the scale is neither in its repr nor among its tensors."""

    def __init__(self, scale=1.0, end=None):
        super().__init__()
        torch.manual_seed(0)
        self.scale = scale
        self.stem = nn.Conv2d(3, 8, 3)
        self.head = nn.Linear(8, 4)
        self.end = end or nn.Identity()
        self.register_buffer("shift", torch.zeros(8), persistent=False)

    def pooled(self, pixels):
        return (self.scale * self.stem(pixels)).mean(dim=(2, 3)) + self.shift

    def forward(self, pixels):
        return self.end(self.head(input=self.pooled(pixels)))


def revision(module, transform=TO_TENSOR):
    return resolve((module, transform), "it").revision


@pytest.mark.parametrize("end", [None, nn.Softmax(dim=1), nn.LogSoftmax(dim=1), nn.Sigmoid()], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_features_and_logits_stand_before_and_after_the_classifier_whatever_follows_it(end, dtype, run):
    module = Tiny(end=end).eval()
    candidate, batch, _ = run((module, TO_TENSOR))
    network = candidate.load()
    with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        for _ in range(2):  # the first batch looks for the classifier
            output = network(batch)
            features = module.pooled(batch)
            torch.testing.assert_close(output.features, features)
            torch.testing.assert_close(output.logits, module.head(features))


def test_a_module_without_classifier_gives_its_output(run):
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval()
    _, batch, output = run((module, TO_TENSOR))
    assert output.logits is None
    torch.testing.assert_close(output.features, module(batch).mean(dim=(2, 3)))


def test_the_module_itself_is_never_changed():
    module = Tiny().half().train()
    module.head.weight.requires_grad_(False)
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    strides = module.stem.weight.stride()
    network = resolve((module, TO_TENSOR), "it").load().to(torch.device("cpu"))
    with torch.inference_mode():
        network(torch.rand(2, 3, 16, 16))
    assert module.training
    assert module.stem.weight.requires_grad
    assert not module.head.weight.requires_grad
    assert module.stem.weight.stride() == strides
    assert all(torch.equal(tensor, before[key]) for key, tensor in module.state_dict().items())
    assert all(tensor.dtype == torch.float16 for tensor in module.state_dict().values())
    assert not any(layer._forward_hooks for layer in module.modules())


def test_the_revision_changes_with_all_that_changes_the_output_and_with_nothing_else():
    revisions = [revision(Tiny()), revision(Tiny(scale=2.0)), revision(Tiny(end=nn.Tanh()))]
    weight, buffer, hooked, patched = Tiny(), Tiny(), Tiny(), Tiny()
    weight.head.bias.data[0] += 1e-6
    buffer.shift[0] = 1
    hooked.head.register_forward_hook(lambda _layer, _inputs, output: output * 2)
    patched.forward = lambda pixels: patched.head(pixels.mean(dim=(2, 3)))
    revisions += [revision(module) for module in (weight, buffer, hooked, patched)]
    assert len(set(revisions)) == len(revisions)
    assert revision(Tiny()) == revision(Tiny().train().eval()) == revisions[0]


SCRIPT = """
import sys; sys.path.insert(0, sys.argv[1])
import mine
from hf_zoosel.zoo import resolve
candidate = resolve((mine.Net(), mine.prepare), "it")
print(candidate.revision, candidate.preprocess.key)
"""
MODULE = """
import numpy as np, torch
from torch import nn
class Base(nn.Module):
    def forward(self, pixels):
        return {factor} * self.head(pixels.mean(dim=(2, 3)))
class Net(Base):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(3, 2)
        self.act = lambda x: x
def prepare(image):
    return np.float32(image).transpose(2, 0, 1) / {divisor}
"""


def test_another_process_agrees_and_sees_edited_code(tmp_path):
    def identity(factor, divisor):
        (tmp_path / "mine.py").write_text(MODULE.format(factor=factor, divisor=divisor))
        command = [sys.executable, "-B", "-c", SCRIPT, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True)
        return done.stdout.split()

    first, again, edited = identity(1, 255), identity(1, 255), identity(2, 254)
    assert again == first
    assert edited[0] != first[0]
    assert edited[1] != first[1]


def test_a_transform_is_known_by_its_code_and_its_closure(tmp_path, monkeypatch):
    def divide_by(divisor):
        return lambda image: np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / divisor

    def key(transform):
        return resolve((Tiny(), transform), "it").preprocess.key

    assert key(divide_by(255)) == key(divide_by(255))
    assert key(divide_by(255)) != key(divide_by(127))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "prepared.py").write_text(MODULE.format(factor=1, divisor=255))
    prepared = importlib.import_module("prepared")
    before = key(prepared.prepare)
    (tmp_path / "prepared.py").write_text(MODULE.format(factor=1, divisor=254))
    importlib.reload(prepared)
    assert key(prepared.prepare) != before


def test_a_transform_that_cannot_be_pickled_works_and_is_not_cached(image):
    lines = (line for line in ["never pickled"])
    preprocess = resolve((Tiny(), lambda image: (TO_TENSOR(image), lines)[0]), "it").preprocess
    assert not preprocess.cacheable
    assert preprocess.pixels(image).shape == (3, 16, 16)


@pytest.mark.parametrize(
    "make",
    [
        lambda image: np.asarray(image.resize((16, 16))).transpose(2, 0, 1) / 255,  # float64, not contiguous
        lambda image: TO_TENSOR(image).requires_grad_(),
        lambda image: TO_TENSOR(image).bfloat16(),
    ],
    ids=["numpy", "requires grad", "bfloat16"],
)
def test_a_transform_may_return_any_array(make, image, run):
    _, batch, _ = run((Tiny(), make))
    assert batch.dtype == torch.float32
    torch.testing.assert_close(batch[0], TO_TENSOR(image), atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("make", "got"),
    [
        (lambda image: image, "got Image"),
        (lambda image: TO_TENSOR(image)[None], r"got Tensor of shape \(1, 3, 16, 16\)"),
        (lambda image: {"pixel_values": TO_TENSOR(image)}, "got dict"),
    ],
    ids=["image", "batch", "dict"],
)
def test_a_transform_that_returns_something_else_says_what(make, got, image):
    with pytest.raises(ValueError, match=rf"\(channels, height, width\), {got}"):
        resolve((Tiny(), make), "it").preprocess.pixels(image)


def test_a_transformers_model_ranks_with_its_image_processor(vit, run):
    _, batch, output = run((vit, ViTImageProcessor(size={"height": 32, "width": 32})))
    with torch.inference_mode():
        torch.testing.assert_close(output.features, vit.vit(batch).last_hidden_state[:, 0])
        torch.testing.assert_close(output.logits, vit(batch).logits)


def test_a_timm_model_brings_its_own_transform_or_takes_another(run):
    model = timm.create_model("test_resnet")
    assert run(model)[1].shape == (1, 3, 160, 160)
    assert run((model, TO_TENSOR))[1].shape == (1, 3, 16, 16)


@pytest.mark.filterwarnings("ignore:.*script_method.*:DeprecationWarning")  # torch.compile's own
def test_a_wrapped_module_is_the_module(run):
    module = Tiny().eval()
    assert revision(nn.DataParallel(module)) == revision(module) == revision(torch.compile(module, backend="eager"))
    torch.testing.assert_close(run((nn.DataParallel(module), TO_TENSOR))[2].logits, run((module, TO_TENSOR))[2].logits)


class Uncopied(Tiny):
    """Keeps a tensor of its last graph, as careless training loops do."""

    def __init__(self):
        super().__init__()
        self.last_loss = self.head.weight.sum() * 2


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ((Tiny(), None), r"Tiny does not say how images are prepared .*\(module, transform\)"),
        ((Tiny(), "bicubic"), "transform must be callable, got str"),
        ((Uncopied(), TO_TENSOR), "cannot be copied .*Detach the tensors"),
    ],
    ids=["no transform", "no callable", "not copied"],
)
def test_a_module_that_cannot_be_used_gives_the_reason(spec, reason):
    with pytest.raises(CandidateError, match=reason):
        resolve(spec, "it").load()


def test_a_module_without_data_gives_the_reason():
    with torch.device("meta"):
        module = nn.Sequential(OrderedDict(head=nn.Linear(3, 2)))
    with pytest.raises(CandidateError, match=r"head\.weight is on the meta device"):
        resolve((module, TO_TENSOR), "it")


def test_an_output_that_is_no_tensor_gives_the_reason(run):
    class Named(Tiny):
        def forward(self, pixels):
            return {"features": self.pooled(pixels)}

    class Answer(Tiny):
        def forward(self, pixels):
            return {"logits": super().forward(pixels)}

    assert run((Answer(), TO_TENSOR))[2] is not None
    with pytest.raises(CandidateError, match="must be a tensor or have `logits`, got dict"):
        run((Named(), TO_TENSOR))


def test_maps_of_several_stages_are_no_vectors(run):
    stages = timm.create_model("test_resnet", features_only=True)
    with pytest.raises(CandidateError, match="must be one vector an image, got 5 feature maps"):
        run((stages, TO_TENSOR))


def test_layers_that_were_never_run_are_named():
    with pytest.raises(CandidateError, match=r"head\.weight is lazy, and was never run"):
        resolve((nn.Sequential(OrderedDict(head=nn.LazyLinear(3))), TO_TENSOR), "it")


def test_the_body_of_a_librarys_model_is_known_apart_from_its_classifier():
    def known(change):
        torch.manual_seed(0)
        module = timm.create_model("test_resnet", num_classes=4)
        with torch.no_grad():
            module.get_parameter(change)[0] += 1
        found = resolve(module, "it")
        return found.revision, found.body_revision

    (one, body), (other, same) = known("fc.weight"), known("fc.bias")
    assert one != other
    assert body == same != known("conv1.0.weight")[1]
    assert resolve((Tiny(), TO_TENSOR), "it").body_revision is None  # what its classifier is shows when it runs
    assert resolve((TinyForImageClassification(), TO_TENSOR), "it").body_revision is None


class TinyForImageClassification(nn.Module):
    """A person's own, whatever it is called: what it does with its classifier is not known."""

    def __init__(self):
        super().__init__()
        self.classifier = nn.Linear(3, 2)
