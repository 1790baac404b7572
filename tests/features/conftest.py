import io

import numpy as np
import pytest
import timm
import torch
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as PILImage

from hf_zoosel.tasks import load_task
from hf_zoosel.zoo import resolve


def photo(seed, size=48):
    """A textured picture whose colour depends on the seed's parity, as PNG bytes."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 128, (size, size, 3), dtype=np.uint8)
    pixels[..., seed % 2] += 100
    buffer = io.BytesIO()
    PILImage.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def pictures():
    """Makes a data set of pictures in two classes that a network can tell apart; bad[row] replaces the bytes."""

    def make(n=12, bad=None):
        images = [{"bytes": (bad or {}).get(row, photo(row)), "path": None} for row in range(n)]
        features = Features({"image": Image(), "label": ClassLabel(names=["red", "green"])})
        raw = Dataset.from_dict({"image": images, "label": [row % 2 for row in range(n)]})
        return raw.cast(features)

    return make


@pytest.fixture
def task(pictures):
    return load_task(pictures())


@pytest.fixture
def network():
    """Makes a tiny real timm network with seeded random weights."""

    def make(seed=0, architecture="test_resnet", **options):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return timm.create_model(architecture, **options)

    return make


@pytest.fixture
def candidate(network):
    def make(name="net", seed=0, **options):
        return resolve(network(seed, **options), name)

    return make
