"""Everything that can be wrong with a checkpoint on disk gives one line that says what."""

import json

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from hf_zoosel.zoo import CandidateError, resolve

WEIGHTS = "model.safetensors"


def reason(folder):
    """Why a folder cannot be used."""
    with pytest.raises(CandidateError) as caught:
        resolve(folder, "it").load()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(params=["timm", "transformers"])
def folder(request, vit, vit_processor, save_timm, save_transformers):
    if request.param == "timm":
        return save_timm(timm.create_model("test_resnet", num_classes=5))
    return save_transformers(vit, vit_processor)


def change_tensors(folder, change, name=WEIGHTS):
    tensors = load_file(folder / name)
    change(tensors)
    save_file(tensors, folder / name, metadata={"format": "pt"})


def test_a_folder_that_is_not_there(tmp_path):
    assert "there is no folder" in reason(tmp_path / "absent")
    assert "there is no folder" in reason(f"{tmp_path}/absent")
    assert "there is no folder" in reason("~/no such folder")
    assert "there is no folder" in reason("./no such folder")


def test_a_folder_without_configuration(folder):
    (folder / "config.json").unlink()
    assert "holds no config.json" in reason(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '"vit"', "\xff"])
def test_a_damaged_configuration(folder, text):
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    assert "config.json" in reason(folder)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "neither a timm `architecture` nor a transformers `model_type`"),
        ({"architecture": "resnet_of_tomorrow"}, "has no architecture 'resnet_of_tomorrow'"),
        ({"architecture": 5}, "has no architecture 5"),
        ({"architecture": "test_resnet", "model_args": [5]}, "config.json cannot be used"),
        ({"architecture": "test_resnet", "pretrained_cfg": "cfg"}, "config.json cannot be used"),
        ({"architecture": "test_resnet", "model_args": {"bogus": 1}}, "timm cannot build test_resnet"),
        ({"architecture": "test_resnet", "num_classes": 5, "model_args": {"num_classes": 3}}, "contradicts itself"),
        ({"architecture": "test_resnet", "model_args": {"pretrained_strict": False}}, "how weights are loaded"),
        ({"model_type": "vit_of_tomorrow"}, "vit_of_tomorrow"),
        ({"model_type": 5}, "transformers cannot use its configuration"),
        ({"model_type": "vit", "hidden_size": "wide"}, "transformers cannot use its configuration"),
        ({"model_type": "bert"}, "no image classifier or image backbone for model type 'bert'"),
        ({"model_type": "clip_vision_model"}, "has no preprocessor_config.json"),
    ],
    ids=str,
)
def test_a_configuration_of_nothing_that_is_known(folder, config, words):
    (folder / "preprocessor_config.json").unlink(missing_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    assert words in reason(folder)


def test_a_damaged_preprocessor_configuration(vit, vit_processor, save_transformers):
    folder = save_transformers(vit, vit_processor)
    (folder / "preprocessor_config.json").write_text("{")
    assert "transformers cannot use its configuration" in reason(folder)


def test_pickled_weights_are_never_opened(folder):
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    assert "holds only pickled weights (pytorch_model.bin)" in reason(folder)
    (folder / "pytorch_model.bin").unlink()
    assert f"holds no {WEIGHTS}" in reason(folder)


@pytest.mark.parametrize("length", [0, 4, 100, -1])
def test_truncated_weights(folder, length):
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:length])
    assert f"{WEIGHTS} is empty, truncated or no safetensors file" in reason(folder)


def test_a_missing_tensor_is_named(folder):
    change_tensors(folder, lambda tensors: tensors.pop(sorted(tensors)[-1]))
    assert "weights do not fit" in reason(folder)


def test_a_tensor_of_another_shape_is_named(folder):
    def widen(tensors):
        name = next(key for key in tensors if key.endswith(".bias"))
        tensors[name] = torch.zeros(len(tensors[name]) + 1)

    change_tensors(folder, widen)
    assert "weights do not fit" in reason(folder)


def test_a_layer_the_configuration_does_not_have_is_named(folder, edit_config):
    if "num_hidden_layers" in (folder / "config.json").read_text():
        edit_config(folder, num_hidden_layers=1)
        assert "config.json has no place for vit.layers.1" in reason(folder)
    else:
        change_tensors(folder, lambda tensors: tensors.update(extra=torch.zeros(3)))
        assert "extra" in reason(folder)


def test_another_number_of_classes(folder, edit_config):
    if 'architecture":' in (folder / "config.json").read_text():
        edit_config(folder, num_classes=3, model_args={})
    else:
        edit_config(folder, id2label={str(i): str(i) for i in range(3)}, label2id={})
    assert "weights do not fit" in reason(folder)


def test_a_missing_shard_and_a_damaged_index(vit, save_transformers):
    folder = save_transformers(vit, max_shard_size="20KB")
    shard = sorted(folder.glob("model-*"))[1]
    shard.unlink()
    assert f"{shard.name} named in model.safetensors.index.json is not there" in reason(folder)
    (folder / "model.safetensors.index.json").write_text("{}")
    assert "model.safetensors.index.json is damaged" in reason(folder)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../elsewhere.safetensors"}}')
    assert "must name files beside it, got ['../elsewhere.safetensors']" in reason(folder)


def test_shards_count_for_the_revision_whatever_their_names(vit, save_transformers):
    folder = save_transformers(vit, max_shard_size="20KB")
    index, first = folder / "model.safetensors.index.json", sorted(folder.glob("model-*"))[0]
    first.rename(folder / "part.safetensors")
    index.write_text(index.read_text().replace(first.name, "part.safetensors"))
    before = resolve(folder, "it")
    before.load()
    change_tensors(folder, lambda tensors: next(iter(tensors.values())).add_(1), "part.safetensors")
    assert resolve(folder, "it").revision != before.revision


def test_code_that_comes_with_a_checkpoint_is_never_run(vit, vit_processor, save_transformers, edit_config, tmp_path):
    folder = save_transformers(vit, vit_processor)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: ...\nclass Model: ...\n")
    auto_map = {"AutoConfig": "evil.Config", "AutoModelForImageClassification": "evil.Model"}
    edit_config(folder, auto_map=auto_map)
    resolve(folder, "it").load()  # a type transformers knows: its own code serves
    edit_config(folder, model_type="evil")
    assert "code from its own repository, which is not run" in reason(folder)
    assert not (tmp_path / "ran").exists()


def test_one_bit_of_a_tensor_or_a_word_of_the_configuration_changes_the_revision(folder, edit_config):
    revisions = [resolve(folder, "it").revision]
    assert resolve(folder, "other name").revision == revisions[0]
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (folder / WEIGHTS).write_bytes(data)
    revisions.append(resolve(folder, "it").revision)
    revisions.append(resolve(edit_config(folder, note="changed"), "it").revision)
    assert len(set(revisions)) == 3
