from pathlib import Path

import numpy as np
import pytest
from torch import nn
from torchvision.transforms import v2

from hf_zoosel.zoo import CandidateError, embedded_models, name_models, resolve

A, B = nn.Linear(3, 2), nn.Linear(3, 2)


def transform(image):
    return np.asarray(image)


def test_modules_of_one_class_get_distinct_names_and_text_names_itself():
    named = name_models(["org/a", A, (B, transform), Path("folder")])
    assert list(named) == ["org/a", "Linear", "Linear-2", "folder"]
    assert named["Linear-2"] == (B, transform)


def test_names_of_a_mapping_are_kept():
    assert name_models({"mine": A, 7: "org/a"}) == {"mine": A, "7": "org/a"}


@pytest.mark.parametrize("lone", ["org/a", Path("a"), A, (A, transform), (A, None), (A, v2.Resize(8))], ids=str)
def test_one_model_may_stand_without_a_list(lone):
    assert list(name_models(lone).values()) == [lone]


def test_a_tuple_of_two_modules_is_two_models():
    assert list(name_models((A, B)).values()) == [A, B]


def test_a_candidate_keeps_its_name_and_can_get_another():
    candidate = resolve((A, transform), "first")
    assert list(name_models([candidate])) == ["first"]
    assert resolve(candidate, "second").name == "second"


def test_no_models_mean_the_embedded_zoo():
    if embedded_models():
        assert tuple(name_models(None)) == embedded_models()
    else:
        with pytest.raises(ValueError, match="pip install"):
            name_models(None)


@pytest.mark.parametrize(
    ("models", "error", "words"),
    [
        ([], ValueError, "at least one model, got none"),
        ({}, ValueError, "at least one model, got none"),
        (["org/a", "org/a"], ValueError, "distinct names, got 'org/a' twice.*models={'name': model"),
        ({1: A, "1": B}, ValueError, "distinct names, got '1' twice"),
        ([""], ValueError, "non-empty names, got '' for ''"),
        ({" ": A}, ValueError, "non-empty names, got ' '"),
        (5, TypeError, "list of models, or names mapped to models, got int"),
        ([5], TypeError, r"\(module, transform\) pairs, got int for '5'"),
        ({"a": None}, TypeError, "got NoneType for 'a'"),
        ([nn.Linear], TypeError, "got type"),
        ([(A, transform, transform)], TypeError, "got tuple"),
    ],
    ids=str,
)
def test_what_cannot_be_named_is_refused_with_the_remedy(models, error, words):
    with pytest.raises(error, match=words):
        name_models(models)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnt50", "no local folder and no timm model. Did you mean resnet50"),
        ("zzzz", "no timm model. A Hub model has an owner: org/name"),
        ("resnet50.zzzz", "no pre-trained weights on the Hub for 'resnet50.zzzz'. Choose one of .*resnet50.a1_in1k"),
        ("org/na me", "no valid Hub id"),
        ("org/a/b", "no valid Hub id"),
        ("hf-hub:", "no timm model"),
        ("org/absent", "HF_HUB_OFFLINE is set"),
    ],
)
def test_a_text_that_names_nothing_says_what_it_could_be(name, words):
    with pytest.raises(CandidateError, match=words):
        resolve(name, "it")
