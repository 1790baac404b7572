"""Checks of arguments that the verbs share."""

import operator
from typing import overload

from hf_zoosel.hub.card_facts import COMMIT
from hf_zoosel.ranking.record import CandidateResult, Ranking
from hf_zoosel.tasks.argument_names import said_of
from hf_zoosel.zoo import Candidate, Spec, name_models, resolve


@overload
def whole_number(name: str, value: int, *, least: int = 1) -> int: ...
@overload
def whole_number(name: str, value: int | None, *, least: int = 1) -> int | None: ...
def whole_number(name: str, value: int | None, *, least: int = 1) -> int | None:
    """Check a count; NumPy integers are taken, bool is not."""
    if value is None:
        return None
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise ValueError(
            f"`{name}` must be a whole number of at least {least}, got {value!r}. Leave it out if unsure."
        )
    return number


def one_candidate(model: Spec | CandidateResult) -> Candidate:
    """The candidate an argument ``model`` stands for: anything that can be ranked, or what a ranking says of one.

    Raises:
        TypeError: If it is of no kind that can be ranked.
        ValueError: If a ranking's candidate was a module in memory, which it does not keep, or is not what it was.
        CandidateError: If it cannot be used.
    """
    if isinstance(model, Ranking):
        raise TypeError(f"`model` must be one checkpoint, got a Ranking of {len(model)}. Pass its `best`.")
    if not isinstance(model, CandidateResult):
        return _resolved(model)
    if model.source is None:
        raise ValueError(
            f"`model` must be the module itself where one was ranked, got the result of {model.name!r}. Pass it."
        )
    found = _resolved(model.source)
    if model.revision in (None, found.revision):
        return found
    if COMMIT.fullmatch(str(model.revision)) and "@" not in model.source:
        return _resolved(f"{model.source}@{model.revision}")
    raise ValueError(
        f"`model` must be what was ranked, got other weights of {model.source!r}: {model.revision} was ranked and "
        f"{found.revision} lies there now. Rank again, or name the checkpoint to take what is there."
    )


def _resolved(model: Spec) -> Candidate:
    with said_of({"models": "model"}):
        ((name, spec),) = name_models([model]).items()
    return resolve(spec, name)
