import ast
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, parse_eval_result_entries
from huggingface_hub.repocard import metadata_load
from hypothesis import example, given, settings, strategies as st
from markdown_it import MarkdownIt
from yaml import safe_load

from hf_zoosel.hub.card_code import loading_code, training_code
from hf_zoosel.hub.markdown import one_line
from hf_zoosel.hub.model_card import EVAL_RESULTS, CardFacts, card_text, model_card, published_card, write_card
from hf_zoosel.zoo.published import published_accuracy
from tests.loopback_hub.uploads import problems_of

COMMIT = "0123456789abcdef0123456789abcdef01234567"
BARE = CardFacts("birds", "our birds", ("crow", "owl"))
FULL = CardFacts(
    name="me/birds",
    dataset="our birds",
    class_names=("crow", "owl"),
    n_train=40,
    base_model="timm/resnet18.a1_in1k",
    base_revision=COMMIT,
    library_name="timm",
    architecture="resnet18",
    dataset_id="me/birds-data",
    test_split="test",
    chosen_by={"place": 1, "scores": {"lfc": 0.12345, "leep": -1.5}},
    source="imagenet-1k",
    source_classes=tuple(f"source class {number}" for number in range(25)),
    source_method="uot",
    source_unit="class",
    n_source=2500,
    arguments={"split": "train", "validation": None},
    recipe={"method": "joint", "epochs": 3, "augmentation": {"scale": (0.5, 1.0)}, "regularizers": {"l2_sp": 0.1}},
    method="joint",
    metrics={"validation_accuracy": 0.8, "test_accuracy": 0.75, "test_balanced_accuracy": 0.7, "test_loss": 0.9},
    n_test=100,
    interval=(0.66, 0.82),
    n_unreadable=2,
    versions={"torch": "2.13.0"},
    seed=7,
    license="apache-2.0",
    notes=("Trained for a test.",),
)
CHARACTERS = st.one_of(st.characters(), st.sampled_from("\\`*_{}[]<>()#+-.!|~$&\n\r\t=:'\"/1"))
NAMES = st.text(CHARACTERS, min_size=1, max_size=12).filter(one_line)


def rendered(card):
    """The tokens of a card's body, those of running text included."""
    tokens = MarkdownIt("commonmark").enable("table").parse(card.text)
    return [one for token in tokens for one in (token, *(token.children or ()))]


def structure(card):
    """Everything but words."""
    return [token.type for token in rendered(card) if token.type not in {"text", "text_special", "softbreak"}]


def headings(card):
    tokens = rendered(card)
    return [tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"]


def test_a_full_card_has_every_section_and_a_bare_one_only_what_is_known():
    assert headings(model_card(FULL)) == [
        "me/birds",
        "How to use it",
        "Classes",
        "Data",
        "How the base model was chosen",
        "Results",
        "Limits",
        "Training",
        "How to train it again",
        "Versions",
    ]
    assert headings(model_card(BARE)) == ["birds", "Classes", "Data", "Limits"]
    assert "None" not in str(model_card(BARE))


def test_the_header_of_a_bare_card_claims_nothing():
    assert model_card(BARE).data.to_dict() == {
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "hf-zoosel", "fine-tuned"],
    }


def test_the_header_says_what_the_hub_filters_by(tmp_path):
    header = metadata_load(write_card(FULL, tmp_path))
    index = header.pop("model-index")
    assert header == {
        "base_model": "timm/resnet18.a1_in1k",
        "base_model_relation": "finetune",
        "datasets": ["me/birds-data"],
        "library_name": "timm",
        "license": "apache-2.0",
        "metrics": ["accuracy", "balanced_accuracy"],
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "hf-zoosel", "fine-tuned"],
    }
    assert index[0]["results"][0]["dataset"] == {"name": "our birds", "type": "me/birds-data", "split": "test"}
    assert [(one["type"], one["value"]) for one in index[0]["results"][0]["metrics"]] == [
        ("accuracy", 0.75),
        ("balanced_accuracy", 0.7),
    ]


@pytest.mark.parametrize("facts", [FULL, BARE, replace(BARE, metrics={"validation_accuracy": 0.5})])
def test_the_hub_has_nothing_against_the_card(facts):
    assert problems_of(str(model_card(facts))) == []


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({"test_accuracy": 0.75, "validation_accuracy": 0.8}, 0.75),
        ({"validation_accuracy": 0.8, "validation_loss": 0.3}, 0.8),
        ({"test_loss": 0.3}, None),
    ],
)
def test_rank_models_reads_one_accuracy_and_test_goes_before_validation(tmp_path, metrics, expected):
    assert published_accuracy(write_card(replace(FULL, metrics=metrics), tmp_path)) == expected


def test_a_result_says_its_split_and_interval():
    text = model_card(FULL).text
    assert "| accuracy | test | 0.7500 | 0.6600 to 0.8200 |" in text
    assert "| accuracy | validation | 0.8000 |  |" in text
    assert "of 100 images" in text
    only = model_card(replace(FULL, metrics={"validation_accuracy": 0.7})).text
    assert "| accuracy | validation | 0.7000 | 0.6600 to 0.8200 |" in only
    assert "of 100 images" not in only


def test_results_on_a_hub_data_set_are_written_in_the_newer_form_too(tmp_path):
    write_card(FULL, tmp_path)
    (entry,) = parse_eval_result_entries(safe_load((tmp_path / EVAL_RESULTS).read_text()))
    assert (entry.dataset_id, entry.value) == ("me/birds-data", 0.75)
    assert entry.notes == "accuracy on 100 test images, 95 % interval 0.6600 to 0.8200"
    write_card(replace(FULL, dataset_id=None), tmp_path)
    assert not (tmp_path / EVAL_RESULTS).exists()
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["README.md"]


def test_the_first_source_classes_are_named_and_all_are_counted():
    text = model_card(FULL).text
    assert "2500 images of imagenet-1k, 25 classes, chosen by `uot`" in text
    assert "source class 19, and 5 more." in text
    assert "source class 20" not in text
    few = model_card(replace(FULL, source_classes=("cat",), source_unit="sample")).text
    assert "1 class, chosen one by one by `uot`. They are: cat." in few


def test_a_thousand_classes_are_folded():
    card = model_card(replace(BARE, class_names=tuple(f"class_{number}" for number in range(1000))))
    assert [token.content.split("\n")[0] for token in rendered(card) if token.type == "html_block"] == [
        "<details>",
        "</details>",
    ]
    assert "class_999" in card.text
    assert "<details>" not in model_card(BARE).text


NAMELESS = replace(FULL, name="a", dataset="b", dataset_id=None, base_model="c", base_revision="no commit", source="f")
LIKE = structure(model_card(replace(NAMELESS, class_names=("d",), notes=("g",), recipe={"epochs": "h"})))


@settings(max_examples=25, deadline=None)
@given(st.lists(NAMES, min_size=4, max_size=4), NAMES)
@example(["0", "0", "0", "/ "], "0")
def test_no_name_breaks_the_card(names, other):
    given = dict(zip(("name", "dataset", "base_model", "source"), names, strict=True))
    facts = replace(NAMELESS, class_names=(other,), notes=(other,), recipe={"epochs": other}, **given)
    card = model_card(facts)
    assert structure(card) == LIKE
    assert problems_of(str(card)) == []
    assert str(ModelCard(str(card))) == str(card)
    str(card).encode()
    ast.parse(training_code(facts))


@pytest.mark.parametrize(
    "name",
    ["a|b", "<b>x</b>", "a_b_c", "__a__", "$5$", "[x](y)", "#1", "1. x", "- x", "`x`", "&lt;", "日本", "---", "a\\"],
)
def test_a_name_is_shown_as_it_is(name):
    tokens = rendered(model_card(replace(BARE, name=name)))
    start = next(i for i, token in enumerate(tokens) if token.type == "heading_open")
    assert "".join(token.content for token in tokens[start + 2 :][: len(tokens[start + 1].children)]) == name


def test_a_folder_of_somebodys_machine_is_not_told():
    card = model_card(replace(BARE, dataset="/home/me/secret/birds", base_model="../secret/net", source="~/secret/s"))
    assert "secret" not in str(card)
    assert "Trained on birds" in str(card)


@pytest.mark.parametrize(
    ("base", "revision", "known"),
    [
        ("timm/net", COMMIT, True),
        ("timm/net", None, True),
        ("runs/first", "digest-of-a-folder", False),
        ("embedded:tf_efficientnet_lite0", None, False),
        ("ResNet", None, False),
    ],
)
def test_only_a_model_of_the_hub_is_a_base_in_the_header(base, revision, known):
    card = model_card(replace(BARE, base_model=base, base_revision=revision))
    assert card.data.base_model == (base if known else None)
    assert ("base_model_relation" in card.data.to_dict()) == known
    assert ("huggingface.co" in card.text) == known


def test_the_training_code_says_model_data_source_and_every_choice():
    calls = [node for node in ast.walk(ast.parse(training_code(FULL))) if isinstance(node, ast.Call)]
    by_name = {ast.unparse(call.func): call for call in calls}
    assert set(by_name) == {"hf_zoosel.SourceSelection.load", "hf_zoosel.finetune", "Recipe", "Augmentation"}
    assert {one.arg: ast.unparse(one.value) for one in by_name["hf_zoosel.finetune"].keywords} == {
        "source": "source",
        "source_data": "'imagenet-1k'",
        "recipe": "recipe",
        "split": "'train'",
        "validation": "None",
    }
    assert f"timm/resnet18.a1_in1k@{COMMIT}" in training_code(FULL)
    assert {one.arg: ast.unparse(one.value) for one in by_name["Recipe"].keywords} == {
        "method": "'joint'",
        "epochs": "3",
        "augmentation": "Augmentation(scale=[0.5, 1.0])",
        "regularizers": "{'l2_sp': 0.1}",
        "seed": "7",
    }
    bare = replace(BARE, base_model="net", method="plain", seed=1)
    assert training_code(bare).endswith('hf_zoosel.finetune(model, data, method="plain", seed=1)')
    assert training_code(BARE) is None


def test_the_recipe_of_the_code_is_the_recipe():
    training = pytest.importorskip("hf_zoosel.training.recipe")
    recipe = training.Recipe(method="joint", epochs=2, regularizers={"l2_sp": 0.5}, seed=3)
    code = training_code(replace(FULL, recipe=recipe.to_dict(), seed=3))
    start = code.index("Recipe(\n")
    again = eval(code[start : code.index("\n)\n") + 2], vars(training))
    assert again == recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": " "}, "`name` must not be empty"),
        ({"source": "\x1b"}, "`source` must not be empty"),
        ({"class_names": ()}, "`class_names` must hold the classes"),
        ({"library_name": "keras"}, "`library_name` must be"),
        ({"dataset_id": "../data"}, "`dataset_id` must be a Hub id"),
        ({"chosen_by": {"rank": 1}}, "`chosen_by` must hold some of"),
        ({"test_dataset": ""}, "`test_dataset` must not be empty"),
        ({"metrics": {"test_loss": float("nan")}}, "`metrics` must be finite"),
        ({"interval": (0.9, 0.1)}, "`interval` must be two shares in order"),
    ],
)
def test_facts_that_are_none_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(FULL, **change)


def test_the_template_is_part_of_the_package():
    root = Path(__file__).parents[2]
    data = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert [(root / "hf_zoosel/hub" / name).is_file() for name in data["hf_zoosel.hub"]] == [True]


def test_the_ranking_it_was_chosen_by_is_told():
    text = model_card(FULL).text
    assert (
        "Number 1 of a ranking by transferability, before any candidate was fine-tuned. Its scores: `lfc` 0.1235"
        in text
    )
    assert "How the base model was chosen" not in model_card(replace(FULL, chosen_by={})).text


def test_figures_of_another_data_set_are_not_the_targets(tmp_path):
    card = write_card(replace(FULL, test_split=None, test_dataset="/home/me/our owls"), tmp_path)
    (index,) = metadata_load(card)["model-index"]
    assert [one["dataset"] for one in index["results"]] == [{"name": "our owls", "type": "our owls"}]
    assert "The test figures are of 100 images of our owls." in card.read_text()
    assert not (tmp_path / EVAL_RESULTS).exists()
    only = model_card(replace(FULL, metrics={"validation_accuracy": 0.7}, test_dataset=None))
    assert [one.dataset_type for one in only.data.eval_results] == ["me/birds-data"]


@pytest.mark.parametrize("name", ["birds", "me/birds"])
def test_the_tensors_of_a_module_of_ones_own_have_code_too(name):
    code = loading_code(replace(FULL, name=name, library_name=None, architecture="Net"))["safetensors"]
    called = {ast.unparse(node.func) for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)}
    assert called == {"module.load_state_dict", "load_file"} | ({"hf_hub_download"} if "/" in name else set())
    assert "Net of 2 classes" in code


def test_a_card_that_somebody_edited_is_published_as_it_is(tmp_path):
    there = replace(BARE, name="me/birds", library_name="timm")
    assert published_card(tmp_path, BARE, there) == card_text(there)
    write_card(BARE, tmp_path)
    assert published_card(tmp_path, BARE, there) == card_text(there)
    with (tmp_path / "README.md").open("a") as file:
        file.write("My own words.\n")
    assert published_card(tmp_path, BARE, there) == card_text(BARE) + "My own words.\n"
    licensed = published_card(tmp_path, BARE, replace(there, license="mit"))
    assert ModelCard(licensed).data.license == "mit"
    assert "My own words." in licensed
    assert problems_of(licensed) == []
    assert (tmp_path / "README.md").read_text().endswith("My own words.\n")
