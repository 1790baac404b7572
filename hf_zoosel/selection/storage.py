"""A selection as JSON, both ways."""

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from hf_zoosel.ranking import json_file
from hf_zoosel.selection.record import Server, SourceClass, SourceSelection, TargetClass

SCHEMA = 1
_WHAT = "a selection written by `SourceSelection.save`"


def to_dict(selection: SourceSelection) -> dict[str, Any]:
    """Return plain dicts, lists and numbers."""
    plain = json_file.plain(replace(selection, view=None))
    return {"schema": SCHEMA, **{name: plain[name] for name in _saved(SourceSelection)}}


def from_dict(data: Mapping[str, Any]) -> SourceSelection:
    """Build the selection again; unknown entries are ignored."""
    json_file.check_schema(data, SCHEMA, entry="ranked", what=_WHAT)
    try:
        known = _known(SourceSelection, data)
        known["ranked"] = [SourceClass(**_known(SourceClass, one)) for one in data["ranked"]]
        known["coverage"] = [_target_class(one) for one in data["coverage"]]
        return SourceSelection(**known)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"`data` must be a complete selection, got a damaged one ({type(error).__name__}: {error})."
        ) from error


def save(selection: SourceSelection, path: Path) -> Path:
    """Write to a temporary file beside the target, then put it in place."""
    return json_file.save(to_dict(selection), path)


def load(path: Path) -> SourceSelection:
    """Read a file written by ``save``; every error names the file."""
    return json_file.load(path, from_dict, _WHAT)


def _target_class(data: Mapping[str, Any]) -> TargetClass:
    known = _known(TargetClass, data)
    known["served_by"] = [Server(**_known(Server, one)) for one in data["served_by"]]
    return TargetClass(**known)


def _known(record: type, data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: data[name] for name in _saved(record)}


def _saved(record: type) -> list[str]:
    return [field.name for field in fields(record) if field.compare]
