import json
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
import transformers as hf
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from torchvision.transforms import v2

from hf_zoosel.training.export import save_model
from hf_zoosel.training.model import TwoHeads
from hf_zoosel.zoo import CandidateError, resolve
from hf_zoosel.zoo.image_size import with_image_size
from tests.training.networks import TRANSFORMERS, Probabilities, shaken

NAMES = ("sea lion", "Märzbecher", "cat")
CLOSE = {"atol": 1e-4, "rtol": 1e-4}
TO_TENSOR = v2.Compose([v2.Resize((32, 32)), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])
SQUARE = {"size": {"height": 32, "width": 32}}


@pytest.fixture(scope="module")
def image():
    noise = np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((310, 230), Image.Resampling.BILINEAR)


def pixels_of(candidate, image):
    return candidate.preprocess.batch(torch.from_numpy(candidate.preprocess.pixels(image))[None])


@pytest.fixture
def save(tmp_path, image):
    """Gives the model, the pixels it sees and the folder it was saved to."""

    def save_it(spec, *, image_size=None, **options):
        candidate = with_image_size(resolve(spec, "it"), image_size)
        pixels = pixels_of(candidate, image)
        model = TwoHeads(candidate.load(), pixels, 3, keep_head=True).eval()
        shaken(model)
        folder = save_model(model, candidate, tmp_path / "out", class_names=NAMES, **options)
        return model, pixels, folder

    return save_it


TIMM = {
    "resnet": lambda: timm.create_model("test_resnet"),
    "without head": lambda: timm.create_model("test_efficientnet", num_classes=0),
    "built otherwise": lambda: timm.create_model(
        "vit_tiny_patch16_224", img_size=32, depth=1, embed_dim=24, num_heads=2
    ),
    "distilled": lambda: timm.create_model("deit_tiny_distilled_patch16_224", depth=1, embed_dim=24, num_heads=2),
    "not pooled": lambda: timm.create_model("test_vit", num_classes=0, global_pool=""),
}
BOTH = {
    **{name: (make, None) for name, make in TIMM.items()},
    "resnet at another size": (TIMM["resnet"], 64),
    "vit of transformers": (lambda: (TRANSFORMERS["vit"](), hf.ViTImageProcessor(**SQUARE)), None),
    "distilled of transformers": (lambda: (TRANSFORMERS["deit"](), hf.ViTImageProcessor(**SQUARE)), None),
    "resnet of transformers, at another size": (
        lambda: (TRANSFORMERS["resnet"](), hf.ConvNextImageProcessor(size={"shortest_edge": 64})),
        48,
    ),
}


@pytest.mark.parametrize("kind", BOTH)
def test_a_saved_model_gives_the_same_logits_wherever_it_is_loaded(kind, save, image):
    make, image_size = BOTH[kind]
    model, pixels, folder = save(make(), image_size=image_size)
    with torch.no_grad():
        expected = model(pixels).target
        again = resolve(folder, "again")
        torch.testing.assert_close(pixels_of(again, image), pixels)
        torch.testing.assert_close(again.load()(pixels).logits, expected, **CLOSE)
        processor = hf.AutoImageProcessor.from_pretrained(folder)
        loaded = hf.AutoModelForImageClassification.from_pretrained(folder)
        output = loaded(**processor(image, return_tensors="pt")).logits
    torch.testing.assert_close(output, expected, **CLOSE)
    assert again.class_names == NAMES
    assert loaded.config.id2label == dict(enumerate(NAMES))
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors"}
    assert [path.name for path in folder.parent.iterdir()] == ["out"]
    probabilities = dict(zip(NAMES, expected[0].softmax(dim=0).tolist(), strict=True))
    for row in hf.pipeline("image-classification", str(folder))(image):
        assert row["score"] == pytest.approx(probabilities[row["label"]], abs=1e-4)


@pytest.mark.parametrize("kind", TIMM)
def test_timm_loads_a_saved_model_unchanged(kind, save, image):
    model, pixels, folder = save(TIMM[kind]())
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=loaded))
    with torch.no_grad():
        torch.testing.assert_close(loaded(pixels), model(pixels).target, **CLOSE)
    torch.testing.assert_close(transform(image)[None], pixels, atol=2e-6, rtol=0)
    assert loaded.pretrained_cfg["label_names"] == list(NAMES)


def test_what_is_said_of_the_old_weights_is_not_said_of_the_new(save, save_as_timm):
    _, _, folder = save(save_as_timm(timm.create_model("test_resnet")))
    text = (folder / "config.json").read_text(encoding="utf-8")
    config = json.loads(text)
    assert config["num_classes"] == config["pretrained_cfg"]["num_classes"] == 3
    assert "num_classes" not in config.get("model_args", {})  # transformers would pass it twice
    assert not any(word in text for word in ("hf_hub_id", "r160_in1k", '"file"', str(folder.parent)))


@pytest.fixture
def save_as_timm(tmp_path):
    def save_it(model):
        timm.models.save_for_hf(model, tmp_path / "checkpoint", safe_serialization=True)
        return tmp_path / "checkpoint"

    return save_it


def test_a_transform_of_timms_own_kind_is_written_as_it_was(save, save_as_timm):
    module = timm.create_model("test_resnet")
    module.pretrained_cfg = module.pretrained_cfg | {"mean": (0.1, 0.2, 0.3), "crop_mode": "squash", "crop_pct": 0.7}
    _, _, folder = save(save_as_timm(module))
    written = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
    assert (written["mean"], written["crop_mode"], written["crop_pct"]) == ([0.1, 0.2, 0.3], "squash", 0.7)


def test_a_grey_network_is_loaded_as_one(save, image):
    model, pixels, folder = save(timm.create_model("test_resnet", in_chans=1))
    again = resolve(folder, "again")
    with torch.no_grad():
        torch.testing.assert_close(again.load()(pixels_of(again, image)).logits, model(pixels).target, **CLOSE)


def test_a_module_of_neither_library_is_written_with_its_names(save):
    with pytest.warns(UserWarning, match="preprocessing of it is no configuration"):
        model, pixels, folder = save((Probabilities(), TO_TENSOR))
    assert sorted(path.name for path in folder.iterdir()) == ["hf_zoosel.json", "model.safetensors"]
    assert json.loads((folder / "hf_zoosel.json").read_text(encoding="utf-8"))["class_names"] == list(NAMES)
    module = Probabilities()
    module.head = nn.Conv2d(8, 3, 1)
    module.load_state_dict(load_file(folder / "model.safetensors"))
    with torch.no_grad():
        torch.testing.assert_close(module(pixels), model(pixels).target.softmax(dim=1))


def test_the_source_head_is_written_if_asked_for(save, tmp_path):
    model, pixels, folder = save(timm.create_model("test_resnet"), keep_head=True)
    with safe_open(folder / "source_head.safetensors", framework="pt") as file:
        weight, bias = file.get_tensor("kept.fc.weight"), file.get_tensor("kept.fc.bias")
        names = json.loads(file.metadata()["class_names"])
    with torch.no_grad():
        output = model(pixels)
    torch.testing.assert_close(output.features @ weight.T + bias, output.kept, **CLOSE)
    assert names[0] == "tench, Tinca tinca"
    assert timm.create_model(f"local-dir:{folder}", pretrained=True).num_classes == 3
    without = TwoHeads(resolve(timm.create_model("test_resnet"), "it").load(), pixels, 3)
    with pytest.raises(ValueError, match="`keep_head` must be False"):
        save_model(
            without, resolve(timm.create_model("test_resnet"), "it"), tmp_path, class_names=NAMES, keep_head=True
        )


class Tied(nn.Module):
    """Two names for one tensor, and a tensor that is a view of another."""

    def __init__(self):
        super().__init__()
        self.stem, self.again = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)
        self.again.weight = self.stem.weight
        self.head = nn.Linear(8, 4)
        self.register_buffer("whole", torch.arange(8.0))
        self.register_buffer("part", self.whole[2:])

    def forward(self, pixels):
        return self.head((self.stem(pixels) + self.again(pixels)).mean(dim=(2, 3)) + self.whole)


@pytest.mark.filterwarnings("ignore:the preprocessing of it:UserWarning")
def test_tensors_that_share_memory_are_all_written(save):
    model, pixels, folder = save((Tied(), TO_TENSOR))
    module = Tied()
    module.head = nn.Linear(8, 3)
    module.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(module(pixels), model(pixels).target)


def test_a_timm_model_that_timm_cannot_rebuild_is_not_lost(save):
    module = timm.create_model("test_resnet")
    module.layer1 = nn.Sequential(module.layer1, nn.Conv2d(32, 32, 1))
    with (
        pytest.warns(UserWarning, match="timm does not rebuild this test_resnet"),
        pytest.warns(UserWarning, match="no configuration that can be written"),
    ):
        _, _, folder = save(module)
    assert "layer1.1.weight" in load_file(folder / "model.safetensors")


def test_a_folder_in_use_keeps_its_other_files_and_gets_all_new_ones_or_none(save, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "all_results.json").write_text("{}")
    (tmp_path / "out" / "config.json").write_text("old")
    candidate = resolve(timm.create_model("test_resnet"), "it")
    model = TwoHeads(candidate.load(), torch.randn(1, 3, 32, 32), 3, keep_head=True)
    with pytest.raises(ValueError, match="name each of the 3 classes, got 2"):
        save_model(model, candidate, tmp_path / "out", class_names=["a", "b"])
    unwritable = replace(candidate, class_names={"a set is no JSON"})
    with pytest.raises(TypeError):
        save_model(model, unwritable, tmp_path / "out", class_names=NAMES, keep_head=True)
    assert (tmp_path / "out" / "config.json").read_text() == "old"
    _, _, folder = save(timm.create_model("test_resnet"))
    assert sorted(path.name for path in folder.iterdir()) == ["all_results.json", "config.json", "model.safetensors"]
    assert json.loads((folder / "config.json").read_text())["num_classes"] == 3


def test_another_size_needs_a_preprocessing_that_has_one(save):
    with pytest.raises(CandidateError, match="cannot be given 48 x 48 pixels"):
        save((Probabilities(), TO_TENSOR), image_size=48)


def test_a_plain_copy_leaves_the_global_generator_and_the_model_alone():
    candidate = resolve(timm.create_model("test_resnet"), "it")
    model = TwoHeads(candidate.load(), torch.ones(1, 3, 32, 32), 3).train()
    state, before = torch.get_rng_state(), {key: tensor.clone() for key, tensor in model.state_dict().items()}
    model.plain()
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
