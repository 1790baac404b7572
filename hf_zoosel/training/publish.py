"""What comes out of a call: the model's folder, its card, and the record of how it was made."""

import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from hf_zoosel.hub.card_code import public
from hf_zoosel.hub.card_facts import Library
from hf_zoosel.hub.model_card import write_card
from hf_zoosel.ranking.record import Setting
from hf_zoosel.training.architecture import is_timm, is_transformers
from hf_zoosel.training.evaluate import Evaluation, UnreadableError
from hf_zoosel.training.export import save_model
from hf_zoosel.training.launch import write_on_main
from hf_zoosel.training.materials import Materials
from hf_zoosel.training.result import FILE, FinetuneResult
from hf_zoosel.training.run import Options, Ran, evaluate

_LIBRARIES = ("hf-zoosel", "torch", "torchvision", "timm", "transformers", "datasets", "accelerate", "pillow")


def publish(ran: Ran, trials: Sequence[Mapping[str, Setting]], *, options: Options) -> FinetuneResult:
    """Measure a finished run on the test rows, once, and write everything a person or the Hub asks for.

    Returns:
        The result, the same on every process.
    """
    try:
        tested = evaluate(ran.model, ran.feed, ran.materials.test)
    except UnreadableError:  # a note says so; the model is no worse for it
        tested = None
    result = _result(ran, tested, trials, options)
    write_on_main(options.team, lambda: _write(ran, result, keep_source_head=options.keep_source_head))
    return result


def _write(ran: Ran, result: FinetuneResult, *, keep_source_head: bool) -> None:
    materials, folder = ran.materials, result.folder
    save_model(
        ran.model,
        materials.candidate,
        folder,
        class_names=materials.train.class_names,
        keep_head=keep_source_head and bool(ran.model.source_head_tensors()),
    )
    write_card(result.card_facts(), folder)
    if materials.selection is not None:
        materials.selection.save(folder / "selection.json")
    if ran.relationship is not None:
        ran.relationship.to_pandas().to_csv(folder / "relationship.csv")
    result.save(folder / FILE)
    # all that is left of the runs is in the result; and what a call that was killed while it wrote left half done
    for useless in (folder / "runs", *folder.glob(f".{folder.name}-*")):
        shutil.rmtree(useless, ignore_errors=True)


def _result(
    ran: Ran, tested: Evaluation | None, trials: Sequence[Mapping[str, Setting]], options: Options
) -> FinetuneResult:
    materials = ran.materials
    metrics: dict[str, float] = {"n_train": len(materials.train), "n_unreadable": len(ran.progress.unreadable)}
    if materials.source is not None:
        metrics["n_source"] = len(materials.source)
    for name, seen in (("validation", ran.validation), ("test", tested)):
        if seen is not None:
            metrics |= {
                f"{name}_accuracy": seen.accuracy,
                f"{name}_balanced_accuracy": seen.balanced_accuracy,
                f"{name}_loss": seen.loss,
                f"n_{name}": seen.n,
            }
    shown = tested or ran.validation
    rows = {"target": materials.train, "validation": materials.validation, "test": materials.test}
    return FinetuneResult(
        folder=options.folder,
        model=public(materials.candidate.name),
        dataset=materials.train.name,
        class_names=materials.train.class_names,
        method=materials.recipe.method,
        metrics=metrics,
        interval=None if shown is None else wilson(round(shown.accuracy * shown.n), shown.n),
        history=tuple(ran.progress.history),
        trials=tuple(trials),
        recipe=materials.recipe.to_dict(),
        source=None if materials.source is None else materials.source.name,
        source_classes=() if materials.source is None else materials.source.class_names,
        source_method=None if materials.selection is None else materials.selection.method,
        source_unit=None if materials.selection is None else materials.selection.unit,
        base_model=materials.candidate.origin,
        library=_library(ran),
        architecture=materials.candidate.architecture,
        dataset_id=materials.dataset_id,
        **_tested_on(materials, tested),
        chosen_by=materials.chosen_by,
        arguments=materials.arguments,
        seed=materials.recipe.seed,
        notes=_notes(ran, tested, options),
        versions={library: version(library) for library in _LIBRARIES},
        revisions={
            "model": materials.candidate.revision,
            **{name: None if one is None else one.identity for name, one in rows.items()},
            "source": None if materials.source is None else materials.source.identity,
        },
    )


def _tested_on(materials: Materials, tested: Evaluation | None) -> dict[str, str | None]:
    """The split of the target the test figures are of, or the name of another data set."""
    if tested is None or materials.test is None:
        return {}
    if materials.test_is_apart:
        return {"test_dataset": materials.test.name}
    return {"test_split": materials.test.split or None}


def _library(ran: Ran) -> Library | None:
    module = ran.model.body
    return "timm" if is_timm(module) else "transformers" if is_transformers(module) else None


def wilson(n_right: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a share.

    Example:
        >>> [round(end, 3) for end in wilson(90, 100)]
        [0.826, 0.945]
    """
    from scipy.stats import binomtest

    interval = binomtest(n_right, n).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def _notes(ran: Ran, tested: Evaluation | None, options: Options) -> tuple[str, ...]:
    materials = ran.materials
    notes = [*materials.candidate.notes, *materials.train.notes, *materials.notes, *ran.notes]
    for one in (materials.validation, materials.test, materials.source, materials.selection):
        notes += () if one is None else one.notes
    notes += _unreadable(ran, tested)
    if ran.progress.stopped and ran.progress.best is not None:
        notes.append(f"stopped early; the weights are those of epoch {ran.progress.best['epoch']:.0f}")
    if ran.progress.accumulation > materials.recipe.accumulation:
        notes.append(f"memory ran out: a step was made in {ran.progress.accumulation} passes")
    if options.keep_source_head and not ran.model.source_head_tensors():
        notes.append("there is no source head to keep: the source was not mixed in")
    processor = materials.candidate.processor
    if isinstance(processor, Mapping) and (processor.get("input_size") or (3,))[0] == 1:
        notes.append("it takes grey images, `image.convert('L')` for timm's transform; transformers does not do that")
    if ran.feed.team.size > 1:
        notes.append(f"trained on {ran.feed.team.size} processes")
    return tuple(dict.fromkeys(notes))


def _unreadable(ran: Ran, tested: Evaluation | None) -> list[str]:
    """What is said of images that could not be read."""
    notes = []
    if ran.progress.unreadable:
        first, why = next(iter(ran.progress.unreadable.items()))
        notes.append(f"{len(ran.progress.unreadable):,} images could not be read and were left out ({first}: {why})")
    for name, seen in (("validation", ran.validation), ("test", tested)):
        if seen is not None and seen.n_unreadable:
            notes.append(f"{seen.n_unreadable:,} {name} images could not be read and are not counted")
    if ran.materials.test is not None and tested is None:
        notes.append(f"none of the {len(ran.materials.test):,} test images could be read: the model is not measured")
    return notes
