"""A ranking as JSON, both ways."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from hf_zoosel.ranking import json_file
from hf_zoosel.ranking.record import CandidateResult, Ranking, Score, SkippedImage

SCHEMA = 1
_WHAT = "a ranking written by `Ranking.save`"


def to_dict(ranking: Ranking) -> dict[str, Any]:
    """Return plain dicts, lists and numbers."""
    return {"schema": SCHEMA, **json_file.plain(ranking)}


def from_dict(data: Mapping[str, Any]) -> Ranking:
    """Build the ranking again; unknown entries are ignored."""
    json_file.check_schema(data, SCHEMA, entry="candidates", what=_WHAT)
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
    return json_file.save(to_dict(ranking), path)


def load(path: Path) -> Ranking:
    """Read a file written by ``save``; every error names the file."""
    return json_file.load(path, from_dict, _WHAT)


def _candidate(data: Mapping[str, Any]) -> CandidateResult:
    known = {field.name: data[field.name] for field in fields(CandidateResult)}
    known["scores"] = {
        metric: Score(score["value"], score["low"], score["high"], score["p_best"])
        for metric, score in data["scores"].items()
    }
    return CandidateResult(**known)
