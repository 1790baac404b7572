import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor, ViTModel

from hf_zoosel.zoo import resolve

VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": 5,
}


@pytest.fixture(autouse=True, scope="session")
def _few_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def image():
    noise = np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((310, 230), Image.Resampling.BILINEAR)


@pytest.fixture
def run(image):
    """Resolves, loads and runs a model on the image; gives candidate, network input and output."""

    def run_it(spec):
        candidate = resolve(spec, "it")
        pixels = candidate.preprocess.pixels(image)
        batch = candidate.preprocess.batch(torch.from_numpy(pixels)[None])
        with torch.inference_mode():
            return candidate, batch, candidate.load()(batch)

    return run_it


@pytest.fixture
def save_timm(tmp_path):
    """Saves a timm model in timm's own layout."""

    def save(model, name="timm"):
        timm.models.save_for_hf(model, tmp_path / name, safe_serialization=True)
        return tmp_path / name

    return save


@pytest.fixture
def save_transformers(tmp_path):
    """Saves a transformers model, with an image processor if one is given."""

    def save(model, processor=None, name="transformers", **options):
        model.save_pretrained(tmp_path / name, **options)
        if processor is not None:
            processor.save_pretrained(tmp_path / name)
        return tmp_path / name

    return save


@pytest.fixture
def vit():
    return ViTForImageClassification(ViTConfig(**VIT)).eval()


@pytest.fixture
def vit_without_head():
    return ViTModel(ViTConfig(**VIT)).eval()


@pytest.fixture
def vit_processor():
    return ViTImageProcessor(size={"height": 32, "width": 32})


@pytest.fixture
def edit_config():
    """Changes a saved config.json."""

    def edit(folder, **changes):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        return folder

    return edit
