import functools
import subprocess
import sys

import pytest
import torch

from hf_zoosel.metrics import METRICS, VARIANTS, Metric, get_metric, leep

HEAVY = ["datasets", "transformers", "timm", "accelerate", "huggingface_hub", "safetensors", "torchvision", "PIL"]
CODE = f"""
import importlib, pkgutil, sys
import hf_zoosel.metrics as room
for module in pkgutil.iter_modules(room.__path__, room.__name__ + "."):
    importlib.import_module(module.name)
print([name for name in {HEAVY} if name in sys.modules])
"""


def mean_norm(features, labels):
    return features.norm(dim=1).mean().item()


def test_each_entry_stands_under_its_own_name():
    assert [metric.name for metric in METRICS.values()] == list(METRICS)
    assert [metric.name for metric in VARIANTS.values()] == list(VARIANTS)
    assert not set(METRICS) & set(VARIANTS)


def test_a_name_gives_the_entry_of_the_table():
    assert get_metric("leep").fn is leep
    assert get_metric("leep").needs == ("source_probs", "labels")


def test_an_unknown_name_lists_the_choices_and_the_closest():
    with pytest.raises(ValueError, match=r"'knn', .*'leep'.* got 'LogMe'. Did you mean 'logme'"):
        get_metric("LogMe")
    with pytest.raises(ValueError, match=r"got 'perplexity'\.$"):
        get_metric("perplexity")


def test_a_metric_is_returned_as_it_is():
    metric = Metric("mine", mean_norm, ("features",), "O(n d)", "none")
    assert get_metric(metric) is metric


def test_a_function_of_the_table_is_its_entry():
    for entry in (*METRICS.values(), *VARIANTS.values()):
        assert get_metric(entry.fn).fn is entry.fn
    assert get_metric(leep) is METRICS["leep"]


def test_a_function_of_features_and_labels_becomes_a_metric():
    metric = get_metric(mean_norm)
    assert (metric.name, metric.needs, metric.influence) == ("mean_norm", ("features", "labels"), None)
    assert metric.fn(torch.ones(2, 4), torch.tensor([0, 1])) == 2
    assert get_metric(functools.partial(mean_norm)).name == "partial"


def test_other_things_are_refused():
    with pytest.raises(TypeError, match="got int"):
        get_metric(3)


def test_the_table_cannot_be_changed():
    with pytest.raises(TypeError):
        METRICS["mine"] = METRICS["lfc"]


def test_no_file_of_the_metrics_imports_a_library_of_images_or_the_hub():
    found = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
