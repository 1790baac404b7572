"""A ranking as JSON, both ways."""

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from hf_zoosel.ranking.mapping import FrozenMapping
from hf_zoosel.ranking.record import CandidateResult, Ranking, Score, SkippedImage

SCHEMA = 1


def to_dict(ranking: Ranking) -> dict[str, Any]:
    """Return plain dicts, lists and numbers."""
    plain = {field.name: _plain(getattr(ranking, field.name)) for field in fields(ranking)}
    return {"schema": SCHEMA, **plain}


def from_dict(data: Mapping[str, Any]) -> Ranking:
    """Build the ranking again; unknown entries are ignored."""
    if not isinstance(data, Mapping) or "schema" not in data or "candidates" not in data:
        raise ValueError("`data` must be a ranking written by `Ranking.save`, got something else.")
    schema = data["schema"]
    if not isinstance(schema, int) or schema < 1:
        raise ValueError(f"`data` must have a positive integer as its schema, got {schema!r}.")
    if schema > SCHEMA:
        raise ValueError(
            f"`data` must have schema {SCHEMA} or lower, got {schema}: a newer version wrote it. Upgrade hf-zoosel."
        )
    try:
        known = {field.name: data[field.name] for field in fields(Ranking)}
        known["candidates"] = [_candidate(candidate) for candidate in data["candidates"]]
        known["skipped_images"] = [SkippedImage(image["row"], image["reason"]) for image in data["skipped_images"]]
        return Ranking(**known)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"`data` must be a complete ranking, got a damaged one ({type(error).__name__}: {error})."
        ) from error


def save(ranking: Ranking, path: Path) -> Path:
    """Write to a temporary file beside the target, then put it in place."""
    text = json.dumps(to_dict(ranking), indent=1, allow_nan=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def load(path: Path) -> Ranking:
    """Read a file written by ``save``; every error names the file."""
    try:
        return from_dict(json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"`path` must be a ranking written by `Ranking.save`, got damaged JSON in {path}: {error}."
        ) from error
    except ValueError as error:
        raise ValueError(f"`path` must be a ranking written by `Ranking.save`, got {path}: {error}") from error


def _candidate(data: Mapping[str, Any]) -> CandidateResult:
    known = {field.name: data[field.name] for field in fields(CandidateResult)}
    known["scores"] = {
        metric: Score(score["value"], score["low"], score["high"], score["p_best"])
        for metric, score in data["scores"].items()
    }
    return CandidateResult(**known)


def _plain(value: Any) -> Any:
    """Turn records, mappings, tuples and numpy numbers into what JSON knows."""
    if isinstance(value, Score | SkippedImage):
        return {name: _plain(item) for name, item in asdict(value).items()}
    if isinstance(value, CandidateResult):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, FrozenMapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"a number must be finite, got {name}")
