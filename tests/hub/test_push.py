"""Pushing with the real Hub client, in a process of its own, to a Hub on the loopback; and loading from there."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from hf_zoosel.hub.model_card import EVAL_RESULTS, CardFacts, write_card
from hf_zoosel.hub.push import push_folder
from tests.loopback_hub.server import Fault, serve
from tests.zoo.conftest import VIT
from tests.zoo.test_hub import ask

CLIENT = Path(__file__).with_name("push_client.py")
CLASSES = ("crow", "owl", "jay")
SENT = {"README.md", "config.json", "model.safetensors", EVAL_RESULTS}


def save_timm(folder):
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=len(CLASSES)).eval()
    config = {"label_names": list(CLASSES)}
    timm.models.save_for_hf(model, folder, model_config=config, safe_serialization=True)
    path = folder / "config.json"
    saved = json.loads(path.read_text())
    saved.get("model_args", {}).pop("num_classes", None)  # transformers takes it from elsewhere and fails on both
    path.write_text(json.dumps(saved))
    return model


def save_vit(folder):
    labels = {"id2label": dict(enumerate(CLASSES)), "label2id": {name: i for i, name in enumerate(CLASSES)}}
    config = ViTConfig(**VIT | {"image_size": 64, "num_labels": len(CLASSES)} | labels)
    model = ViTForImageClassification(config).eval()
    model.save_pretrained(folder)
    ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return model


def add_what_stays_at_home(folder):
    for name in (
        "checkpoints/epoch-1/model.safetensors",
        "logs/events",
        "run.json",
        ".model.safetensors-12ab",
        ".x/y",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"at home")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two models with their cards, an image, pixels, and what the models say of them."""
    root = tmp_path_factory.mktemp("push")
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.save(pixels, root / "pixels.pt")
    noise = np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save(root / "image.jpg")
    models = {"timm": save_timm(root / "timm"), "vit": save_vit(root / "vit")}
    with torch.inference_mode():
        logits = {"timm": models["timm"](pixels).tolist(), "vit": models["vit"](pixels).logits.tolist()}
    (root / "logits.json").write_text(json.dumps(logits))
    for name, repo_id, library in (("timm", "me/birds", "timm"), ("vit", "me/vit", "transformers")):
        measured = {"metrics": {"test_accuracy": 0.5}, "n_test": 10, "dataset_id": "me/birds-data"}
        write_card(CardFacts(repo_id, "our birds", CLASSES, library_name=library, **measured), root / name)
    save_timm(root / "header")
    (root / "header" / "README.md").write_text("---\na: [1\n---\n")
    add_what_stays_at_home(root / "timm")
    return root


@pytest.fixture(scope="module")
def hub(root, tmp_path_factory):
    before = tmp_path_factory.mktemp("before")
    (before / "README.md").write_text("The model of last week.\n")
    with serve() as hub:
        for name in ("full", "forbidden", "down", "header"):
            hub.push(f"me/{name}", before)
        hub.faults["me/flaky", "@lfs"] = Fault(500, times=1)
        hub.faults["me/full", "@lfs"] = Fault(507)
        hub.faults["me/forbidden", "@commit"] = Fault(403)
        hub.faults["me/down", "@commit"] = Fault(501)
        yield hub


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("hf-home")


@pytest.fixture(scope="module")
def found(root, hub, home):
    return ask([str(root)], home, client=CLIENT, HF_ENDPOINT=hub.url, HF_TOKEN="hf_me")


def test_a_folder_is_one_commit_without_what_stays_at_home(found, hub):
    repository = hub.repositories["me/birds"]
    first, second = list(repository.commits)[1:3]
    assert found["first"] == f"{hub.url}/me/birds/commit/{first}"
    assert set(repository.commits[first]) == SENT
    assert repository.messages[:3] == ["initial commit", "Upload model fine-tuned with hf_zoosel", "More"]
    assert repository.private
    assert found["second"].endswith(second)


def test_a_second_push_sends_only_what_changed_and_a_third_nothing(found, hub):
    repository = hub.repositories["me/birds"]
    first, second = list(repository.commits)[1:3]
    changed = {name for name, data in repository.commits[second].items() if repository.commits[first][name] != data}
    assert changed == {"README.md"}
    assert found["same"] == found["second"]
    assert len([request for request in hub.uploads() if "/me/birds/" in request]) == 2  # one model on each branch


def test_a_branch_is_made_and_the_main_one_is_left_alone(found, hub):
    repository = hub.repositories["me/birds"]
    assert found["branch"].endswith(repository.branches["vit"])
    assert found["second"].endswith(repository.branches["main"])
    assert "preprocessor_config.json" in repository.files("vit")


@pytest.mark.parametrize(("name", "library"), [("timm", "timm"), ("timm", "transformers"), ("vit", "transformers")])
def test_what_was_pushed_answers_as_what_was_trained(name, library, found, root):
    expected = torch.tensor(json.loads((root / "logits.json").read_text())[name])
    torch.testing.assert_close(torch.tensor(found["pulled"][name][library]), expected)


@pytest.mark.parametrize("name", ["timm", "vit"])
def test_the_code_of_the_card_runs_and_names_a_class(name, found):
    lines = found["printed"][name].splitlines()
    assert len(lines) == {"timm": 2, "vit": 1}[name]
    assert all(any(one in line for one in CLASSES) for line in lines)


def test_a_breakdown_half_way_through_a_file_is_retried(found, hub):
    assert found["flaky"].startswith("http")
    assert set(hub.repositories["me/flaky"].files()) == SENT
    assert len([request for request in hub.uploads() if "/me/flaky/" in request]) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("full", "PushError: me/full cannot be pushed to (HfHubHTTPError: Server error '507"),
        ("forbidden", "PushError: me/forbidden cannot be pushed to: your token may not write there."),
        ("down", "PushError: me/down cannot be pushed to (HfHubHTTPError: Server error '501"),
        ("header", "ValueError: `folder` must hold what the Hub takes, got an answer: Invalid metadata in README.md."),
    ],
)
def test_a_push_that_fails_leaves_the_old_revision_alone(name, message, found, hub):
    repository = hub.repositories[f"me/{name}"]
    assert found[name].startswith(message)
    assert len(repository.commits) == 1
    assert repository.files() == {"README.md": b"The model of last week.\n"}


def test_who_may_not_write_is_told_what_to_do(found, hub):
    assert "other/birds cannot be pushed to: your token may not write there. Take one" in found["other"]
    assert "other/birds" not in hub.repositories
    assert "your token is not valid, or has run out. Run `hf auth login`" in found["token"]
    assert found["logged out"] == (
        "PushError: me/birds cannot be pushed to: you are not logged in. Run `hf auth login`, or set HF_TOKEN."
    )


def test_offline_nothing_is_tried(root, home):
    assert ask([str(root)], home, client=CLIENT, HF_HUB_OFFLINE="1") == (
        "PushError: me/birds cannot be pushed to: HF_HUB_OFFLINE is set. Unset it and push again."
    )


@pytest.mark.parametrize("repo_id", ["", "a b", "a/b/c", "a--b", "../birds", "me/birds.git"])
def test_a_name_the_hub_does_not_know_is_refused_at_once(repo_id, root):
    with pytest.raises(ValueError, match="`repo_id` must be `name` or `owner/name`"):
        push_folder(root / "timm", repo_id)


def test_a_folder_without_a_whole_model_is_refused_at_once(root, tmp_path):
    with pytest.raises(ValueError, match=r"`folder` must hold model.safetensors"):
        push_folder(tmp_path, "me/birds")
    weights = (root / "timm" / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[:-100])
    with pytest.raises(ValueError, match=r"`folder` must hold a whole model.safetensors"):
        push_folder(tmp_path, "me/birds")
