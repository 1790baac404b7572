"""Settings written as ``name=value``, as a command line gives them."""

import json
from collections.abc import Iterable
from typing import Any

_PYTHON = {"True": True, "False": False, "None": None}


def read_settings(settings: Iterable[str], argument: str) -> dict[str, Any]:
    """Names, and values as JSON or Python has them; what is neither is text.

    Args:
        settings: Texts ``name=value``.
        argument: What to call them in an error.

    Raises:
        ValueError: If one has no equals sign.

    Example:
        >>> read_settings(["center=true", "scale=0.03", "cost=cosine"], "options")
        {'center': True, 'scale': 0.03, 'cost': 'cosine'}
    """
    return dict(_name_and_value(setting, argument) for setting in settings)


def _name_and_value(setting: str, argument: str) -> tuple[str, Any]:
    name, equals, text = setting.partition("=")
    if not equals:
        raise ValueError(f"`{argument}` must be name=value, got {setting!r}.")
    if text in _PYTHON:
        return name, _PYTHON[text]
    try:
        return name, json.loads(text)
    except json.JSONDecodeError:
        return name, text
