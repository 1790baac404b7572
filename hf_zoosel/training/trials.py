"""Choices made on the validation rows: the learning rate, and whether and how strongly to mix the source in."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hf_zoosel.ranking.record import Setting
from hf_zoosel.training.book import DivergedError
from hf_zoosel.training.materials import Materials
from hf_zoosel.training.recipe import Recipe
from hf_zoosel.training.run import Options, Ran, run

SOURCE_WEIGHTS = (0.1, 0.3, 1.0)
_RACE = 3  # a race is a third of a run

Trial = dict[str, Setting]


def choose_and_train(
    materials: Materials, rates: Sequence[float], *, auto: bool, options: Options
) -> tuple[Ran, list[Trial]]:
    """Train by the best of the learning rates, with the weight of the source that won the race if ``auto``.

    Returns:
        The best run, and a row for each that was tried.

    Raises:
        ValueError: If there is something to choose and no validation rows.
        DivergedError: If every rate diverges.
    """
    auto = auto and materials.source is not None
    if (auto or len(rates) > 1) and materials.validation is None:
        raise ValueError(
            "`validation` must be given to choose a learning rate or a source weight, got None. Hold rows out."
        )
    trials: list[Trial] = []
    if auto:
        options = replace(options, keep_source_head=False)  # plain training has none, whoever wins
        materials = _race(materials, rates, options, trials)
    best: Ran | None = None
    failure: DivergedError | None = None
    for rate in rates:
        trial = materials.with_recipe(materials.recipe.changed(learning_rate=rate))
        try:
            ran = run(trial, options)
        except DivergedError as error:
            if len(rates) == 1:
                raise
            failure = error
            trials.append({"learning_rate": rate, "validation_accuracy": None, "note": "diverged"})
            continue
        if len(rates) > 1:
            trials.append({"learning_rate": rate, "validation_accuracy": _accuracy(ran), "note": ""})
        if best is None or _key(ran) > _key(best):
            best = ran
        del ran  # the next one needs its memory
    if best is None:
        assert failure is not None
        raise failure
    return best, trials


def _race(materials: Materials, rates: Sequence[float], options: Options, trials: list[Trial]) -> Materials:
    """A third of the epochs without the source, and with it at each weight; the source must win to be mixed in.

    At the first of the rates at which plain training does not diverge.
    """
    epochs = math.ceil(materials.recipe.epochs / _RACE)
    short = materials.recipe.changed(epochs=epochs, refit=False, patience=None)
    short, plain = _first_that_holds(materials, [short.changed(learning_rate=rate) for rate in rates], options)
    _note(trials, 0.0, plain, epochs)
    best_weight, best = 0.0, plain
    for weight in SOURCE_WEIGHTS:
        try:
            mixed = run(materials.with_recipe(short.changed(source_weight=weight)), options)
        except DivergedError:
            _note(trials, weight, None, epochs)
            continue
        _note(trials, weight, mixed, epochs)
        if best is plain or _key(mixed) > _key(best):
            best_weight, best = weight, mixed
        del mixed
    gain, error = paired_gain(plain, best)
    if gain > error:
        note = f"the source is mixed in at weight {best_weight:g}, which won the race"
        return replace(
            materials,
            recipe=materials.recipe.changed(source_weight=best_weight),
            notes=(*materials.notes, f"{note} by {100 * gain:.1f} points (standard error {100 * error:.1f})"),
        )
    note = "the source is not mixed in: the race did not show a gain beyond its standard error"
    return replace(without_source(materials), notes=(*materials.notes, f"{note} ({100 * gain:+.1f} points)"))


def _first_that_holds(materials: Materials, recipes: Sequence[Recipe], options: Options) -> tuple[Recipe, Ran]:
    """The first recipe by which plain training does not diverge, and its run."""
    for recipe in recipes[:-1]:
        try:
            return recipe, run(without_source(materials.with_recipe(recipe)), options)
        except DivergedError:
            continue
    return recipes[-1], run(without_source(materials.with_recipe(recipes[-1])), options)


def without_source(materials: Materials) -> Materials:
    """The same target, trained on alone."""
    method = "co-tuning" if materials.recipe.method == "co-tuning" else "plain"
    return replace(materials, source=None, selection=None, recipe=materials.recipe.changed(method=method))


def paired_gain(before: Ran, after: Ran) -> tuple[float, float]:
    """Gain in validation accuracy and its standard error, from the rows on which the two differ."""
    assert before.validation is not None
    assert after.validation is not None
    difference = after.validation.right.astype(np.float64) - before.validation.right
    return float(difference.mean()), float(difference.std() / math.sqrt(len(difference)))


def _note(trials: list[Trial], weight: float, ran: Ran | None, epochs: int) -> None:
    note = f"race of {epochs} {'epoch' if epochs == 1 else 'epochs'}" + (": diverged" if ran is None else "")
    accuracy = None if ran is None else _accuracy(ran)
    trials.append({"source_weight": weight, "validation_accuracy": accuracy, "note": note})


def _accuracy(ran: Ran) -> float | None:
    return None if ran.validation is None else ran.validation.accuracy


def _key(ran: Ran) -> tuple[float, float]:
    """More rows right, then the smaller loss."""
    return (0.0, 0.0) if ran.validation is None else (ran.validation.accuracy, -ran.validation.loss)
