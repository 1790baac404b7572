import random
import sys

import numpy as np
import pytest
import torch

from hf_zoosel.features.reference import Recipe, trained_on
from hf_zoosel.metrics import lfc
from hf_zoosel.tasks import load_task
from tests.features.test_extract import CPU, run

QUICK = Recipe(architecture="test_resnet", size=32, epochs=2)


@pytest.fixture
def task(pictures):
    return load_task(pictures(40), max_per_class=None)


def features_by(recipe, task, folder):
    return run([trained_on(task, recipe)], task, folder)["reference"].features


def test_a_trained_network_separates_the_classes_better_than_an_untrained_one(task, tmp_path):
    labels = torch.from_numpy(task.labels.copy())
    untrained = features_by(Recipe("test_resnet", 32, epochs=0), task, tmp_path)
    trained = features_by(Recipe("test_resnet", 32, epochs=3, rate=0.02), task, tmp_path)
    assert lfc(trained, labels) > lfc(untrained, labels) + 0.2


def test_the_same_task_gives_the_same_network_and_another_seed_another(task, tmp_path):
    one, again = (features_by(QUICK, task, tmp_path / name) for name in ("one", "again"))
    assert torch.equal(one, again)
    other = features_by(Recipe("test_resnet", 32, epochs=2, seed=1), task, tmp_path / "other")
    assert not torch.allclose(one, other)


def test_cached_features_spare_the_training(task, tmp_path, monkeypatch):
    first = features_by(QUICK, task, tmp_path)

    def trained_again(*_):
        raise AssertionError("it was trained again")

    monkeypatch.setattr(sys.modules[trained_on.__module__], "_train", trained_again)
    assert torch.equal(features_by(QUICK, task, tmp_path), first)


def test_other_labels_images_or_settings_are_another_network(task, pictures):
    swapped = pictures(40).map(lambda row: {"label": 1 - row["label"]})
    candidates = [
        trained_on(task, QUICK),
        trained_on(load_task(swapped, max_per_class=None), QUICK),
        trained_on(load_task(pictures(38), max_per_class=None), QUICK),
        trained_on(task, Recipe("test_resnet", 32, epochs=5)),
        trained_on(task, Recipe("test_resnet", 32, epochs=2, rate=0.1)),
        trained_on(task),
    ]
    assert len({candidate.revision for candidate in candidates}) == len(candidates)
    assert trained_on(task, QUICK).revision == candidates[0].revision


def test_the_callers_random_state_and_modes_are_left_alone(task, tmp_path):
    states = torch.random.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    with torch.no_grad():
        features_by(QUICK, task, tmp_path)
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.random.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert random.getstate() == states[2]


def test_it_can_be_trained_in_a_callers_inference_mode(task, tmp_path):
    plain = features_by(QUICK, task, tmp_path / "plain")
    with torch.inference_mode():
        assert torch.equal(features_by(QUICK, task, tmp_path / "inference"), plain)


def test_images_that_cannot_be_read_are_left_out_of_the_training(pictures, tmp_path):
    task = load_task(pictures(33, bad={4: b"", 31: b"no image"}), max_per_class=None)  # and a last batch of one
    outcome = run([trained_on(task, QUICK)], task, tmp_path)["reference"]
    assert set(outcome.unreadable) == {4, 31}
    assert outcome.features.isfinite().all()


def test_where_no_image_can_be_read_it_has_no_features_and_nothing_is_raised(pictures, tmp_path):
    task = load_task(pictures(4, bad=dict.fromkeys(range(4), b"")))
    assert len(run([trained_on(task, QUICK)], task, tmp_path, CPU)["reference"].rows) == 0
