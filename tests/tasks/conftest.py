import io

import datasets
import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def _datasets_work_in_the_test_folder(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture
def png():
    """Bytes of a one-colour PNG; another number, another colour."""

    def encode(number=0, size=(4, 3)):
        buffer = io.BytesIO()
        Image.new("RGB", size, (number % 256, number // 256, 7)).save(buffer, "PNG")
        return buffer.getvalue()

    return encode


@pytest.fixture
def toy(png):
    """Makes a Dataset of an Image and a label column."""

    def make(labels, feature=None):
        column = {"image": [{"bytes": png(i), "path": None} for i in range(len(labels))], "label": list(labels)}
        made = datasets.Dataset.from_dict(column).cast_column("image", datasets.Image())
        return made if feature is None else made.cast_column("label", feature)

    return make


@pytest.fixture
def pets():
    return datasets.ClassLabel(names=["cat", "dog", "eel"])


@pytest.fixture
def pixels():
    """Decodes one image of a task to an array."""

    def decode(task, position=0):
        return np.asarray(task.images.encoded([position])[0].decode())

    return decode
