import numpy as np
import pytest
import timm
import torch
import transformers as hf

from hf_zoosel.zoo import embedded_models, resolve
from hf_zoosel.zoo.class_names import find_class_names, imagenet_names, match_class_names

IMAGENET = imagenet_names(1000)


def test_names_match_whole_by_synonym_and_by_synset():
    wanted = ["n01440764", "goldfish, Carassius auratus", "man_eater", "TIGER-shark", "crane, bird of prey"]
    found = find_class_names(wanted, IMAGENET)
    assert found.indices == (0, 1, 2, 3, None)
    assert match_class_names(wanted[:4], IMAGENET) == [0, 1, 2, 3]
    synsets = timm.data.ImageNetInfo().label_names()
    assert match_class_names(["tench", "n01443537"], synsets) == [0, 1]


def test_a_name_of_two_classes_is_not_guessed():
    found = find_class_names(["crane", "tench", "unicorn"], IMAGENET)
    assert found.indices == (None, 0, None)
    assert found.ambiguous == ("crane",)
    assert found.missing == ("unicorn",)
    assert match_class_names(["crane"], IMAGENET) is None
    assert match_class_names(["n02012849", "n03126707"], IMAGENET) == [134, 517]
    assert match_class_names(["maillot", "maillot, tank suit"], IMAGENET) == [638, 639]


def test_two_names_of_one_class_are_ambiguous():
    found = find_class_names(["tench", "Tinca tinca"], IMAGENET)
    assert found.ambiguous == ("tench", "Tinca tinca")
    assert not found.is_complete


def test_a_list_of_the_same_names_in_the_same_order_is_the_head_itself():
    assert match_class_names(IMAGENET, IMAGENET) == list(range(1000))
    first_names = [name.upper().split(",")[0] for name in IMAGENET]
    assert match_class_names(first_names, IMAGENET) == list(range(1000))
    assert match_class_names(first_names[::-1], IMAGENET) is None


def test_a_candidate_knows_the_names_of_its_head_where_somebody_gave_them(tmp_path):
    config = hf.ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    processor = hf.ViTImageProcessor()
    named = hf.ViTForImageClassification(hf.ViTConfig(**config.to_diff_dict() | {"id2label": {0: "a", 1: "b"}}))
    unnamed = hf.ViTForImageClassification(config)
    for module, names in ((named, ("a", "b")), (unnamed, None)):
        assert resolve((module, processor), "it").class_names == names
        module.save_pretrained(tmp_path / str(names))
        assert resolve(tmp_path / str(names), "it").class_names == names
    assert resolve((hf.ViTModel(config), processor), "it").class_names is None


def test_only_a_head_that_is_known_to_be_imagenets_has_its_names(tmp_path):
    assert resolve(timm.create_model("test_resnet"), "it").class_names == IMAGENET
    assert resolve(timm.create_model("test_resnet", num_classes=5), "it").class_names is None
    assert resolve(timm.create_model("test_resnet", num_classes=0), "it").class_names is None
    module = timm.create_model("test_resnet", num_classes=2)
    timm.models.save_for_hf(module, tmp_path, model_config={"label_names": ["a", "b"]}, safe_serialization=True)
    assert resolve(tmp_path, "it").class_names == ("a", "b")


@pytest.mark.parametrize("name", embedded_models())
def test_embedded_networks_name_their_classes_and_cite_their_origin(name):
    candidate = resolve(name, "it")
    assert candidate.class_names == IMAGENET
    assert candidate.origin in (f"timm/{name.removeprefix('embedded:')}.in1k", None)
    assert isinstance(hash(candidate), int)  # what it was made from is a dict, and no part of what it is


@pytest.mark.parametrize(("dataset", "n", "ambiguous"), [("imagenet20", 20, ()), ("tiny_imagenet32", 199, ("crane",))])
def test_classes_of_real_subsets_of_imagenet_are_found(dataset, n, ambiguous, shared_task):
    names = shared_task(dataset).features["label"].names
    found = find_class_names(names, IMAGENET)
    assert found.missing == ()
    assert found.ambiguous == ambiguous
    assert sum(index is not None for index in found.indices) == n


@pytest.mark.skipif(not embedded_models(), reason="the embedded zoo is not installed")
def test_the_classes_found_are_those_the_network_sees(shared_task):
    split = shared_task("imagenet20")
    numbers = torch.tensor(match_class_names(split.features["label"].names, IMAGENET))
    split = split.select(np.random.default_rng(0).permutation(len(split))[:30])
    candidate = resolve(embedded_models()[0], "it")
    network, right = candidate.load(), []
    for row in split:
        pixels = torch.from_numpy(candidate.preprocess.pixels(row["image"].convert("RGB")))[None]
        with torch.inference_mode():
            logits = network(candidate.preprocess.batch(pixels)).logits
        right.append(bool(logits[:, numbers].argmax() == row["label"]))
    assert np.mean(right) > 0.6  # chance .05
