"""The model card of a fine-tuned model: what is known of it, and nothing else."""

import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_zoosel.hub.card_code import loading_code, public, training_code
from hf_zoosel.hub.card_facts import CardFacts as CardFacts, is_hub_id
from hf_zoosel.hub.markdown import code, code_cell, escaped, listed, one_line

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

EVAL_RESULTS = ".eval_results/hf_zoosel.yaml"
_TEMPLATE = Path(__file__).with_name("model_card_template.md")
_TASK = "image-classification"
_FOLDED_FROM = 50  # classes
_SOURCE_CLASSES = 20  # written out
_SHARES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy"}  # metric of the Hub -> its name here


def model_card(facts: CardFacts) -> "ModelCard":
    """Make the card; sections of which nothing is known are left out.

    Its header holds, for the Hub's filters and for ``rank_models``, the library, the base model, the data set and the
    accuracy, once: on test, or on validation where there is no test figure.

    Args:
        facts: What is known.

    Example:
        >>> card = model_card(CardFacts("me/birds", "birds", ("crow", "owl"), metrics={"test_accuracy": 0.9}))
        >>> card.data.eval_results[0].metric_value
        0.9
    """
    from huggingface_hub import ModelCard

    return ModelCard.from_template(_metadata(facts), template_path=str(_TEMPLATE), **_content(facts))


def card_text(facts: CardFacts) -> str:
    """What ``README.md`` holds."""
    return model_card(facts).content + "\n"


def published_card(folder: str | os.PathLike[str], own: CardFacts, facts: CardFacts) -> str:
    """The card to publish: of the facts, but where somebody has edited the one in the folder, that one.

    Args:
        folder: Where the model lies.
        own: What its card was written from.
        facts: What is known of the published model. Its licence goes into an edited card too.
    """
    from huggingface_hub import ModelCard

    path = Path(folder) / "README.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else None
    if text is None or text == card_text(own):
        return card_text(facts)
    if facts.license is None:
        return text
    card = ModelCard(text)
    card.data["license"] = facts.license
    return str(card)


def write_card(facts: CardFacts, folder: str | os.PathLike[str]) -> Path:
    """Write ``README.md`` and, for a test accuracy on a data set of the Hub, ``.eval_results/hf_zoosel.yaml``.

    Both are written whole or not at all. The second file is the Hub's newer form of results, of which it shows those
    on data sets that are registered as benchmarks.

    Args:
        facts: What is known.
        folder: Where the model lies; made if it is not there.

    Returns:
        Where the card was written.
    """
    folder = Path(folder)
    card, results = folder / "README.md", folder / EVAL_RESULTS
    _write(card, card_text(facts))
    text = _eval_results(facts)
    if text is not None:
        _write(results, text)
    else:
        results.unlink(missing_ok=True)  # of an earlier training in this folder
    return card


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _metadata(facts: CardFacts) -> "ModelCardData":
    from huggingface_hub import ModelCardData

    results = list(_evaluations(facts))
    return ModelCardData(
        model_name=one_line(facts.name) if results else None,
        library_name=facts.library_name,
        license=facts.license,
        pipeline_tag=_TASK,
        tags=[_TASK, "hf-zoosel", "fine-tuned"],
        base_model=facts.base_on_hub,
        base_model_relation=None if facts.base_on_hub is None else "finetune",
        datasets=None if facts.dataset_id is None else [facts.dataset_id],
        metrics=[result.metric_type for result in results] or None,
        eval_results=results or None,
    )


def _headline_split(facts: CardFacts) -> str | None:
    """The split the header reports: test figures were not chosen by, so they go before validation figures."""
    splits = (split for split in ("test", "validation") if f"{split}_accuracy" in facts.metrics)
    return next(splits, None)


def _evaluations(facts: CardFacts) -> "Iterator[EvalResult]":
    from huggingface_hub import EvalResult

    split = _headline_split(facts)
    elsewhere = facts.test_dataset if split == "test" else None
    for metric, name in _SHARES.items():
        if f"{split}_{metric}" in facts.metrics:
            yield EvalResult(
                task_type=_TASK,
                task_name="Image Classification",
                dataset_type=public(elsewhere or facts.dataset_id or facts.dataset),
                dataset_name=public(elsewhere or facts.dataset),
                dataset_split=facts.test_split if split == "test" else None,
                metric_type=metric,
                metric_name=f"{split} {name}",
                metric_value=float(facts.metrics[f"{split}_{metric}"]),
            )


def _eval_results(facts: CardFacts) -> str | None:
    """The newer form, in YAML; None where the Hub's client does not know it or there is nothing to say in it."""
    if facts.dataset_id is None or facts.test_dataset is not None or "test_accuracy" not in facts.metrics:
        return None
    try:
        from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
    except ImportError:  # huggingface_hub before 1.4
        return None
    from huggingface_hub.utils import yaml_dump

    said = ["accuracy on test images" if facts.n_test is None else f"accuracy on {facts.n_test} test images"]
    if facts.interval is not None:
        said.append(f"95 % interval {_interval(facts)}")
    entry = EvalResultEntry(
        dataset_id=facts.dataset_id,
        task_id="default",
        value=float(facts.metrics["test_accuracy"]),
        notes=", ".join(said),
    )
    return str(yaml_dump(eval_result_entries_to_yaml([entry]), sort_keys=False))


def _content(facts: CardFacts) -> dict[str, Any]:
    """What the template asks for; every name in it is escaped."""
    shown = facts.source_classes[:_SOURCE_CLASSES]
    results = list(_result_rows(facts))
    return {
        "title": escaped(facts.name),
        "n_classes": len(facts.class_names),
        "classes": listed(facts.class_names),
        "folded_classes": len(facts.class_names) > _FOLDED_FROM,
        "base": _base(facts),
        "base_revision": _code_or_none(facts.base_revision),
        "architecture": _code_or_none(facts.architecture),
        "data": _link(facts.dataset, facts.dataset_id),
        "n_train": facts.n_train,
        "n_unreadable": facts.n_unreadable,
        "chosen": _chosen(facts.chosen_by),
        "source": None if facts.source is None else escaped(public(facts.source)),
        "n_source": facts.n_source,
        "n_source_classes": len(facts.source_classes),
        "source_classes": listed(shown),
        "more_source_classes": len(facts.source_classes) - len(shown),
        "source_method": _code_or_none(facts.source_method),
        "one_by_one": facts.source_unit == "sample",
        "notes": [escaped(note) for note in facts.notes],
        "loading": loading_code(facts),
        "where": "" if is_hub_id(facts.name, owned=True) else ", run in the folder of the model",
        "results": results,
        "n_test": facts.n_test if any(row[1] == "test" for row in results) else None,
        "test_dataset": None if facts.test_dataset is None else escaped(public(facts.test_dataset)),
        "interval": facts.interval,
        "has_validation": any(row[1] == "validation" for row in results),
        "method": _code_or_none(facts.method),
        "seed": facts.seed,
        "recipe": list(_recipe_rows(facts.recipe)),
        "training_code": training_code(facts),
        "versions": ", ".join(f"{escaped(name)} {escaped(version)}" for name, version in facts.versions.items()),
    }


def _code_or_none(text: str | None) -> str | None:
    return None if text is None else code(text)


def _link(name: str, dataset_id: str | None) -> str:
    text = escaped(public(name))
    return text if dataset_id is None else f"[{text}](https://huggingface.co/datasets/{dataset_id})"


def _base(facts: CardFacts) -> str | None:
    if facts.base_model is None:
        return None
    text = escaped(public(facts.base_model))
    return text if facts.base_on_hub is None else f"[{text}](https://huggingface.co/{facts.base_on_hub})"


def _chosen(by: Mapping[str, Any] | None) -> str | None:
    """What is known of the ranking it was taken from."""
    if not by:
        return None
    place = f"Number {by['place']} of a ranking" if "place" in by else "Chosen from a ranking"
    scores = ", ".join(f"{code(str(name))} {value:.4g}" for name, value in by.get("scores", {}).items())
    told = f" Its scores: {scores}." if scores else ""
    return f"{place} by transferability, before any candidate was fine-tuned.{told}"


def _result_rows(facts: CardFacts) -> Iterator[tuple[str, str, str, str]]:
    """Metric, split, value and interval of every figure, as they stand in the table."""
    headline = f"{_headline_split(facts)}_accuracy"
    for name, value in facts.metrics.items():
        split, _, metric = name.partition("_")
        if split not in ("test", "validation", "train"):
            split, metric = "", name
        text = str(value) if isinstance(value, int) else f"{value:.4f}"
        interval = _interval(facts) if name == headline and facts.interval is not None else ""
        yield escaped(metric.replace("_", " ")), split, text, interval


def _interval(facts: CardFacts) -> str:
    assert facts.interval is not None
    return "{:.4f} to {:.4f}".format(*facts.interval)


def _recipe_rows(recipe: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every choice as it stands in the table; those of a mapping in it get its name before theirs."""
    for name, value in recipe.items():
        if isinstance(value, Mapping):
            yield from _recipe_rows(value, f"{prefix}{name}.")
        elif name not in ("method", "seed"):  # told before the table
            yield code_cell(f"{prefix}{name}"), code_cell(repr(value))
