"""The Hub client, in processes of its own (its settings are read at import), against a Hub on the loopback."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import timm
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from tests.loopback_hub.server import Fault, serve
from tests.zoo.conftest import VIT

CLIENT, ROOT = Path(__file__).with_name("hub_client.py"), Path(__file__).parents[2]
GOOD = ("org/timm", "hf-hub:org/timm@v1", "org/transformers", "org/shards", "tf_efficientnet_lite0")


def ask(specs, home, *, client=CLIENT, **environment):
    """What a fresh process makes of these models."""
    settings = {"HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(ROOT), **environment}
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, str(client), *specs], env=inherited | settings, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A timm and a transformers checkpoint, whole and in shards."""
    root = tmp_path_factory.mktemp("folders")
    timm.models.save_for_hf(timm.create_model("test_resnet", num_classes=4), root / "timm", safe_serialization=True)
    timm.models.save_for_hf(timm.create_model("test_resnet", num_classes=3), root / "old", safe_serialization=True)
    vit = ViTForImageClassification(ViTConfig(**VIT | {"image_size": 64}))
    vit.save_pretrained(root / "transformers")
    vit.save_pretrained(root / "shards", max_shard_size="40KB")
    for name in ("transformers", "shards"):
        ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(root / name)
    return root


@pytest.fixture(scope="module")
def hub(folders):
    with serve() as hub:
        hub.push("org/timm", folders / "old", branch="v1")
        for name in ("timm", "transformers", "shards"):
            hub.push(f"org/{name}", folders / name)
        hub.push("timm/tf_efficientnet_lite0.in1k", folders / "timm")
        hub.push("org/gated", folders / "timm")
        hub.faults["org/gated", "config.json"] = Fault(403, "GatedRepo")
        hub.push("org/withheld", folders / "timm")
        hub.faults["org/withheld", "model.safetensors"] = Fault(403)
        hub.push("org/down", folders / "timm")
        hub.faults["org/down", ""] = Fault(503)
        _push_without(hub, folders, "org/no-config", "config.json")
        _push_without(hub, folders, "org/pickled", "model.safetensors", "pytorch_model.bin")
        _push_truncated(hub, folders, "org/truncated")
        yield hub


def _push_without(hub, folders, repo_id, name, instead=None):
    copy = folders / repo_id.replace("/", "-")
    shutil.copytree(folders / "timm", copy)
    (copy / name).rename(copy / instead) if instead else (copy / name).unlink()
    hub.push(repo_id, copy)


def _push_truncated(hub, folders, repo_id):
    copy = folders / repo_id.replace("/", "-")
    shutil.copytree(folders / "timm", copy)
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    hub.push(repo_id, copy)


BAD = {
    "org/absent": "does not exist on the Hub, or is private",
    "org/timm@nope": "has no such revision",
    "org/gated": "is gated. Accept its terms",
    "org/down": "is not in the local cache and cannot be fetched from the Hub (Server error '503",
    "org/no-config": "has no config.json",
    "org/pickled": "holds only pickled weights (pytorch_model.bin)",
    "org/truncated": "model.safetensors is empty, truncated or no safetensors file",
    "org/withheld": "403",
    "org/a/b": "no valid Hub id",
    "nope": "is no local folder and no timm model",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("hf-home")


@pytest.fixture(scope="module")
def online(hub, home):
    return ask([*GOOD, *BAD], home, HF_ENDPOINT=hub.url)


@pytest.mark.parametrize("spec", GOOD)
def test_a_good_repository_is_pinned_to_its_commit(spec, online, hub):
    repo_id, _, revision = spec.removeprefix("hf-hub:").partition("@")
    repository = hub.repositories[repo_id if "/" in repo_id else f"timm/{repo_id}.in1k"]
    assert online[spec] == {
        "revision": repository.branches[revision or "main"],
        "n_features": 32 if repo_id in {"org/transformers", "org/shards"} else 96,
    }


@pytest.mark.parametrize("spec", BAD)
def test_a_bad_repository_gives_a_reason_in_one_line_and_at_once(spec, online):
    assert BAD[spec] in online[spec]["reason"]
    assert "\n" not in online[spec]["reason"]
    assert online[spec]["seconds"] < 5


def test_a_bare_word_that_is_no_timm_model_never_reaches_the_hub(online, hub):
    assert online["nope"]["reason"]
    assert not [request for request in hub.requests if re.search("(models|GET|HEAD) ?/nope", request)]
    assert [request for request in hub.requests if "models/org/absent" in request]


def test_only_what_is_needed_is_downloaded(online, hub):
    def fetched(repo_id):
        return {name for request in hub.requests for name in re.findall(rf"^GET /{repo_id}/resolve/.*/(.*)", request)}

    assert online["org/pickled"]["reason"]
    assert fetched("org/pickled") == set()
    assert fetched("org/timm") == {"config.json", "model.safetensors"}


@pytest.mark.parametrize(
    "environment", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}], ids=["offline", "no network"]
)
def test_what_was_downloaded_loads_again_without_the_hub(environment, online, home):
    found = ask([*GOOD, "org/absent", "tf_efficientnet_lite1"], home, **environment)
    assert {spec: found[spec] for spec in GOOD} == {spec: online[spec] for spec in GOOD}
    assert "is not in the local cache" in found["org/absent"]["reason"]
    assert found["org/absent"]["seconds"] < 5
    assert "embedded:tf_efficientnet_lite1" in found["tf_efficientnet_lite1"]["reason"]
