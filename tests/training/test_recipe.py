import json
import math

import pytest

from hf_zoosel.training.augment import Augmentation
from hf_zoosel.training.recipe import Recipe


def test_a_step_schedule_divides_by_ten_at_sixty_and_at_eighty_percent():
    factors = [Recipe(schedule="step").rate_at(step, 10) for step in range(10)]
    assert factors == pytest.approx([1.0] * 6 + [0.1] * 2 + [0.01] * 2)


def test_a_cosine_schedule_falls_from_one_to_almost_nothing():
    factors = [Recipe(schedule="cosine").rate_at(step, 100) for step in range(100)]
    assert factors[0] == 1.0
    assert factors[50] == pytest.approx(0.5)
    assert factors[-1] < 1e-3
    assert factors == sorted(factors, reverse=True)


def test_warm_up_rises_linearly_and_hands_over_to_the_schedule():
    recipe = Recipe(schedule="cosine", warmup=0.1)
    factors = [recipe.rate_at(step, 100) for step in range(100)]
    assert factors[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert factors[10] == 1.0
    assert factors[-1] == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))


def test_a_decaying_source_weight_ends_near_zero():
    recipe = Recipe(source_weight=0.4, source_decay=True)
    assert [recipe.source_weight_at(step, 4) for step in range(4)] == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert Recipe(source_weight=0.4).source_weight_at(3, 4) == 0.4


def test_settings_of_a_command_line_are_read_as_json_or_text():
    recipe = Recipe.from_settings(
        ["batch_norm=frozen", "refit=true", "patience=3", 'regularizers={"bss": 0.1}', "augmentation.scale=[0.5, 1]"]
    )
    assert (recipe.batch_norm, recipe.refit, recipe.patience) == ("frozen", True, 3)
    assert dict(recipe.regularizers) == {"bss": 0.1}
    assert recipe.augmentation == Augmentation(scale=(0.5, 1))


def test_every_choice_changes_the_digest_and_survives_json():
    base = Recipe()
    others = [Recipe(seed=1), Recipe(regularizers={"bss": 0.1}), Recipe(augmentation=Augmentation(hflip=0.0))]
    assert len({recipe.digest for recipe in (base, *others)}) == 4
    assert json.loads(json.dumps(base.to_dict())) == base.to_dict()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"method": "both"}, "`method` must be one of"),
        ({"batch_norm": "none"}, "`batch_norm` must be one of"),
        ({"mixed_precision": "fp8"}, "`mixed_precision` must be one of"),
        ({"epochs": 0}, "`epochs` must be a whole number of at least 1"),
        ({"epochs": True}, "`epochs` must be a whole number"),
        ({"batch_size": 1}, "`batch_size` must be a whole number of at least 2"),
        ({"learning_rate": 0.0}, "`learning_rate` must be above 0"),
        ({"learning_rate": "high"}, "`learning_rate` must be a finite number"),
        ({"source_weight": -0.1}, "`source_weight` must be at least 0"),
        ({"source_weight": math.nan}, "`source_weight` must be a finite number"),
        ({"warmup": 1.0}, "`warmup` must be below 1"),
        ({"regularizers": {"l3": 1.0}}, "`regularizers` must be names out of"),
        ({"regularizers": {"bss": 0}}, "`regularizers` must have strengths above 0"),
        ({"max_grad_norm": 0.0}, "`max_grad_norm` must be above 0"),
        ({"regularizers": {"stoch_norm": 0.5}, "batch_norm": "frozen"}, "without 'stoch_norm' where `batch_norm`"),
    ],
)
def test_choices_out_of_range_are_refused(change, said):
    with pytest.raises(ValueError, match=said):
        Recipe(**change)


@pytest.mark.parametrize("setting", ["batchnorm=frozen", "refit", "augmentation=none", "augmentation.size=3"])
def test_settings_that_name_nothing_are_refused(setting):
    with pytest.raises(ValueError, match="`recipe` must"):
        Recipe.from_settings([setting])


def test_settings_are_read_as_json_or_python_has_them():
    recipe = Recipe.from_settings(["refit=False", "compile=false", "source_decay=True", "image_size=None"])
    assert (recipe.refit, recipe.compile, recipe.source_decay, recipe.image_size) == (False, False, True, None)


@pytest.mark.parametrize(
    "setting",
    [
        "refit=maybe",
        "augmentation.scale=0.3",
        "augmentation.hflip=abc",
        "regularizers=l2_sp",
        'augmentation.ratio=[1,"a"]',
    ],
)
def test_a_setting_of_another_type_is_a_value_error_that_names_it(setting):
    name = setting.partition("=")[0].rpartition(".")[2]
    with pytest.raises(ValueError, match=f"`{name}` must"):
        Recipe.from_settings([setting])
