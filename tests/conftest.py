"""Every test runs offline, with a cache of its own, and leaves global random state alone."""

import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported: a test must never reach the network
import pytest
from hypothesis import settings

from hf_zoosel._torchvision import mend_torchvision

mend_torchvision()
settings.register_profile("no deadline", deadline=None)  # a first example may import a library
settings.load_profile("no deadline")

SHARED_DATA = Path(__file__).parents[1].parent / "shared" / "data"


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("HF_ZOOSEL_CACHE", str(tmp_path_factory.mktemp("zoosel-cache")))


@pytest.fixture
def shared_task():
    """Loads the train split of a small real data set, or skips where it is not at hand."""

    def load(name):
        import datasets

        path = SHARED_DATA / name / "train.parquet"
        if not path.is_file():
            pytest.skip(f"real data set {name} is not at hand ({path.name} absent)")
        return datasets.load_dataset("parquet", data_files={"train": str(path)}, split="train")

    return load
