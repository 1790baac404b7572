"""Every metric as a folder that ``evaluate.load`` takes and the Hub takes as a Space."""

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import evaluate
import numpy as np
import pandas as pd
import pytest
import torch
from evaluate.utils.gradio import infer_gradio_input_types, parse_gradio_data
from huggingface_hub import SpaceCard

from hf_zoosel.hub import write_spaces
from hf_zoosel.hub.evaluate_adapter import TransferabilityMetric
from hf_zoosel.hub.evaluate_inputs import FACTS, INPUTS
from hf_zoosel.hub.evaluate_text import columns_of, is_per_candidate
from hf_zoosel.metrics import METRICS, VARIANTS, Metric, knn, leep, lfc
from hf_zoosel.metrics.domain_similarity import domain_similarity
from hf_zoosel.metrics.registry import Fact, RowPart

TABLE = {**METRICS, **VARIANTS}
ON_SAMPLES = {name: metric for name, metric in TABLE.items() if not is_per_candidate(metric)}
LABELS = np.array([-7, 40, 40, 3] * 10)


def each(table):
    return pytest.mark.parametrize("metric", table.values(), ids=table)


@pytest.fixture(scope="module")
def spaces(tmp_path_factory):
    return {path.name: path for path in write_spaces(tmp_path_factory.mktemp("spaces"))}


@pytest.fixture(scope="module", autouse=True)
def _modules_in_a_folder_of_their_own(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evaluate.config.HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
        patch.setattr(sys, "path", [*sys.path])
        yield


@pytest.fixture
def load(spaces, tmp_path):
    return lambda name, **options: evaluate.load(str(spaces[name]), cache_dir=str(tmp_path / "cache"), **options)


def example_of(space):
    """The code of a card, and the inputs it passes to compute."""
    (code,) = re.findall(r"```python\n(.*?)```", (space / "README.md").read_text(), re.DOTALL)
    names = {}
    exec(code.replace("metric.compute(", "given = dict(").replace("metric =", "#"), names)
    return code, names["given"]


def function_value(metric, given):
    """What the adapter should return, from the function of the table."""
    arrays = {name: np.asarray(value) for name, value in given.items()}
    if is_per_candidate(metric):
        (column,) = arrays.values()
        scores = [metric.fn(tuple(row) if column.ndim > 1 else row) for row in column.tolist()]
        return {metric.name: metric.over_zoo(torch.tensor(scores)).tolist() if metric.over_zoo else scores}
    value = metric.fn(*(torch.tensor(arrays[need]) for need in metric.needs))
    if metric.over_zoo is None:
        return {metric.name: value}
    return {f"{metric.name}_term_{number}": term for number, term in enumerate(value, start=1)}


def rows_of(metric, space):
    return {name: np.asarray(value) for name, value in example_of(space)[1].items() if name in columns_of(metric)}


def facts_of(metric, space):
    return {name: value for name, value in example_of(space)[1].items() if name in FACTS}


def test_every_need_of_the_table_is_described():
    assert set(INPUTS) == {*get_args(RowPart), *get_args(Fact)}


@each(TABLE)
def test_a_folder_has_all_that_a_space_needs(metric, spaces):
    folder = spaces[metric.name]
    assert {path.name for path in folder.iterdir()} == {f"{metric.name}.py", "README.md", "app.py", "requirements.txt"}
    for source in folder.glob("*.py"):
        compile(source.read_text(), str(source), "exec")
    assert (folder / "requirements.txt").read_text().startswith("hf-zoosel[evaluate]>=")
    card = SpaceCard.load(folder / "README.md")
    assert (card.data.title, card.data.sdk, card.data.app_file) == (metric.name, "gradio", "app.py")
    assert card.data.tags == ["evaluate", "metric"]
    assert len(card.data.to_dict()["description"]) > 30
    headings = re.findall(r"^##+ (.+)", card.text, re.MULTILINE)
    assert {"How to Use", "Inputs", "Output Values", "Limitations and Bias", "Citation"} <= set(headings)
    assert all(f"**{need}**" in card.text for need in metric.needs)


@each(TABLE)
def test_the_code_of_the_card_runs_and_gives_the_functions_value(metric, spaces, tmp_path):
    code, given = example_of(spaces[metric.name])
    place = f"{str(spaces[metric.name])!r}, cache_dir={str(tmp_path)!r}"
    names = {}
    exec(code.replace(repr(f"USER/{metric.name}"), place).replace("metric.compute", "result = metric.compute"), names)
    assert names["result"] == {
        key: pytest.approx(value, rel=1e-12) for key, value in function_value(metric, given).items()
    }
    assert names["metric"].name == metric.name


@each({name: metric for name, metric in ON_SAMPLES.items() if "labels" in metric.needs})
def test_labels_with_gaps_are_classes_like_others(metric, spaces, load):
    given = {**example_of(spaces[metric.name])[1], "labels": LABELS}
    expected = function_value(metric, given)
    assert load(metric.name).compute(**given) == {key: pytest.approx(v, rel=1e-12) for key, v in expected.items()}


@each(TABLE)
def test_rows_that_are_streamed_give_the_same(metric, spaces, load):
    rows, facts, loaded = (
        rows_of(metric, spaces[metric.name]),
        facts_of(metric, spaces[metric.name]),
        load(metric.name),
    )
    at_once = loaded.compute(**rows, **facts)
    n = len(next(iter(rows.values())))
    loaded.add_batch(**{name: column[: n // 3] for name, column in rows.items()})
    loaded.add_batch(**{name: column[n // 3 : n - 1] for name, column in rows.items()})
    loaded.add(**{name: column[n - 1] for name, column in rows.items()})
    assert len(loaded) == n
    assert loaded.compute(**facts) == at_once


@each(ON_SAMPLES)
def test_other_than_a_matrix_is_refused(metric, spaces, load):
    rows, loaded = rows_of(metric, spaces[metric.name]), load(metric.name)
    first = columns_of(metric)[0]
    with pytest.raises(ValueError, match=rf"`{first}` must be 2-D \(n_samples, \w+\), got shape \(40,\)"):
        loaded.add_batch(**{**rows, first: rows[first][:, 0]})
    with pytest.raises(ValueError, match=r"must be 2-D"):
        loaded.compute(**{**rows, first: rows[first][:, :0]}, **facts_of(metric, spaces[metric.name]))


@each({name: metric for name, metric in ON_SAMPLES.items() if len(columns_of(metric)) > 1})
def test_columns_of_unequal_length_are_refused(metric, spaces, load):
    rows = rows_of(metric, spaces[metric.name])
    last = columns_of(metric)[-1]
    with pytest.raises(ValueError, match=rf"`{last}` must have 40 rows, as many as `{columns_of(metric)[0]}`"):
        load(metric.name).add_batch(**{**rows, last: rows[last][:39]})


class SimilarityOfDomains(TransferabilityMetric):
    metric_name = "similarity_of_domains"
    metric = Metric(
        metric_name, domain_similarity, ("features", "labels", "source_means", "source_counts"), "O(n d)", "none"
    )


def test_a_fact_that_is_missing_is_named_and_costs_no_rows(problem, tmp_path):
    features, labels = problem
    loaded = SimilarityOfDomains(cache_dir=str(tmp_path))
    loaded.add_batch(features=features, labels=labels)
    facts = {"source_means": np.eye(3, 6), "source_counts": [300, 400, 500]}
    with pytest.raises(ValueError, match=r"must be given \['source_counts'\] too, got \['source_means'\]"):
        loaded.compute(source_means=facts["source_means"])
    expected = domain_similarity(*map(torch.tensor, (features, labels, *facts.values())))
    assert loaded.compute(**facts) == {"similarity_of_domains": expected}


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    return rng.normal(size=(40, 6)) + LABELS[:, None] / 20, LABELS


@pytest.mark.parametrize(
    "kind",
    [
        lambda x: x.tolist(),
        lambda x: torch.tensor(x),
        lambda x: torch.tensor(x).requires_grad_() if x.ndim == 2 else torch.tensor(x, dtype=torch.int16),
        lambda x: list(x),
        lambda x: pd.DataFrame(x) if x.ndim == 2 else pd.Series(x, dtype=object),
        lambda x: np.asfortranarray(x),
    ],
    ids=["lists", "tensors", "tensors with gradients", "lists of arrays", "pandas", "columns first"],
)
def test_arrays_of_any_kind_are_taken(kind, problem, load):
    features, labels = problem
    expected = lfc(torch.tensor(features), torch.tensor(labels))
    assert load("lfc").compute(features=kind(features), labels=kind(labels)) == {"lfc": expected}


def test_half_precision_is_widened_not_rounded_again(problem, load):
    features = torch.tensor(problem[0]).bfloat16()
    expected = lfc(features, torch.tensor(problem[1]))
    assert load("lfc").compute(features=features, labels=problem[1])["lfc"] == pytest.approx(expected, rel=1e-12)


def test_predictions_and_references_stand_for_the_first_column_and_the_labels(problem, load):
    features, labels = problem
    loaded = load("lfc")
    named = loaded.compute(features=features, labels=labels)
    assert loaded.compute(predictions=features, references=labels) == named
    for row, label in zip(features, labels, strict=True):
        loaded.add(prediction=row, reference=label)
    assert loaded.compute() == named
    with pytest.raises(TypeError, match=r"`predictions` must not be given to 'lfc' with .*: it means features"):
        loaded.compute(features=features, predictions=features, labels=labels)


def test_options_of_the_metric_go_to_compute(problem, load):
    features, labels = problem
    expected = knn(torch.tensor(features), torch.tensor(labels), distance="cosine")
    assert load("knn").compute(features=features, labels=labels, distance="cosine") == {"knn": expected}


@pytest.mark.parametrize("misspelt", [{"featuers": [[1.0]]}, {"distanze": "cosine"}])
def test_an_unknown_argument_is_named(misspelt, problem, load):
    with pytest.raises(TypeError, match=f"'knn' must be given some of .* got .*{next(iter(misspelt))}"):
        load("knn").compute(features=problem[0], labels=problem[1], **misspelt)


def test_a_batch_without_labels_is_refused(problem, load):
    with pytest.raises(ValueError, match=r"A batch must have \['features', 'labels'\], got \['features'\]"):
        load("lfc").compute(features=problem[0])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"labels": LABELS / 2}, TypeError, r"`labels` must be integers, got float64"),
        ({"features": [["a"]] * 40}, TypeError, r"`features` must be numbers, got <U1"),
        ({"features": [[1.0], [1.0, 2.0]] * 20}, ValueError, r"`features` must have rows of one length"),
        ({"features": np.full((40, 2), np.nan)}, ValueError, r"must be finite, got 40 of 40 rows"),
        ({"features": np.ones((40, 2))}, ValueError, r"must "),
        ({"labels": np.zeros(40, dtype=int)}, ValueError, r"at least 2 classes"),
    ],
)
def test_an_input_that_cannot_be_scored_is_refused_and_leaves_nothing_behind(
    change, error, message, problem, load, tmp_path
):
    features, labels = problem
    loaded = load("lfc")
    with pytest.raises(error, match=message):
        loaded.compute(**{"features": features, "labels": labels, **change})
    assert not list(tmp_path.rglob("*.arrow"))
    assert loaded.compute(features=features, labels=labels)["lfc"] > 0


def test_batches_of_unequal_width_are_refused(problem, load):
    features, labels = problem
    loaded = load("lfc")
    loaded.add_batch(features=features, labels=labels)
    loaded.add_batch(features=features[:, :4], labels=labels)
    with pytest.raises(ValueError, match=r"`features` must have as many columns in every batch, got \[4, 6\]"):
        loaded.compute()


def test_rows_can_stay_in_memory(problem, load, tmp_path):
    loaded = load("lfc", keep_in_memory=True)
    loaded.add_batch(features=problem[0], labels=problem[1])
    assert not list(tmp_path.rglob("*.arrow"))
    assert loaded.compute() == {"lfc": lfc(*map(torch.tensor, problem))}


def test_metrics_combine_and_each_takes_its_own_needs(problem, load):
    features, labels = problem
    probs = np.random.default_rng(1).dirichlet(np.ones(5), size=40)
    y = torch.tensor(labels)
    expected = {"lfc": lfc(torch.tensor(features), y), "leep": leep(torch.tensor(probs), y)}
    both = evaluate.combine([load("lfc"), load("leep")])
    assert both.compute(features=features, source_probs=probs, labels=labels) == pytest.approx(expected, rel=1e-12)
    both.add_batch(features=features, source_probs=probs, labels=labels)
    assert both.compute() == pytest.approx(expected, rel=1e-12)


def test_metrics_of_the_same_needs_combine_under_the_usual_names(problem, load):
    both = evaluate.combine([load("lfc"), load("knn")])
    assert set(both.compute(predictions=problem[0], references=problem[1])) == {"lfc", "knn"}


def test_a_folder_loads_by_a_relative_path_from_another_working_directory(spaces, tmp_path, monkeypatch, problem):
    monkeypatch.chdir(spaces["lfc"].parent)
    loaded = evaluate.load("./lfc", cache_dir=str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert loaded.compute(features=problem[0], labels=problem[1]) == {"lfc": lfc(*map(torch.tensor, problem))}


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # evaluate's widget changes its table in place
def test_what_a_person_types_into_the_widget_of_a_space_is_taken(load):
    loaded = load("lfc")
    typed = pd.DataFrame({"features": ["[2, 0]", "[1, 0.0]", "[0, 1]", "[0, 2]"], "labels": [3, 3, 7, 7]})
    given = parse_gradio_data(typed, infer_gradio_input_types(loaded.features.values()))
    assert loaded.compute(**given)["lfc"] == pytest.approx(0.825, abs=1e-4)


def test_the_help_of_compute_describes_the_inputs(load):
    loaded = load("knn")
    assert "**features** (float64, shape `(n_samples, n_features)`)" in loaded.compute.__doc__
    assert "**distance** (default `'euclidean'`): `\"euclidean\"`" in loaded.compute.__doc__
    assert "Cover & Hart" in loaded.citation
    assert loaded.info.reference_urls == ["https://doi.org/10.1109/TIT.1967.1053964"]


def test_only_the_metrics_asked_for_are_written(tmp_path):
    assert write_spaces(tmp_path / "new" / "folder", ["leep"]) == [tmp_path / "new" / "folder" / "leep"]
    assert [path.name for path in Path(tmp_path / "new" / "folder").iterdir()] == ["leep"]
    with pytest.raises(ValueError, match="Did you mean 'logme'"):
        write_spaces(tmp_path, ["LogMe"])


def test_writing_needs_no_evaluate():
    code = "import sys, hf_zoosel.hub; print('evaluate' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
