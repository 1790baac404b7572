"""Frozen records as JSON files: written whole or not at all, read back with errors that name the file."""

import json
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np

Record = TypeVar("Record")


def save(data: Mapping[str, Any], path: Path) -> Path:
    """Write to a temporary file beside the target, then put it in place; missing folders are made."""
    text = json.dumps(data, indent=1, allow_nan=False)
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


def load(path: Path, read: Callable[[Any], Record], what: str) -> Record:
    """Read a file by ``read``; every error names the file and ``what`` it should be."""
    try:
        return read(json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"`path` must be {what}, got damaged JSON in {path}: {error}.") from error
    except ValueError as error:
        raise ValueError(f"`path` must be {what}, got {path}: {error}") from error


def check_schema(data: Any, newest: int, *, entry: str, what: str) -> None:
    """Raise ValueError unless ``data`` has ``entry`` and a schema that this version can read."""
    if not isinstance(data, Mapping) or "schema" not in data or entry not in data:
        raise ValueError(f"`data` must be {what}, got something else.")
    schema = data["schema"]
    if not isinstance(schema, int) or schema < 1:
        raise ValueError(f"`data` must have a positive integer as its schema, got {schema!r}.")
    if schema > newest:
        raise ValueError(
            f"`data` must have schema {newest} or lower, got {schema}: a newer version wrote it. Upgrade hf-zoosel."
        )


def plain(value: Any) -> Any:
    """Turn records, mappings, tuples and numpy numbers into what JSON knows."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"a number must be finite, got {name}")
