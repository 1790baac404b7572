"""Google-style docstrings taken apart, so that a published text has one source."""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

_SECTION = re.compile(r"^(Args|Returns|Raises|Warns|Reference|Example):\n", re.MULTILINE)
_ENTRY = re.compile(r"^(\w+): ((?:.+)(?:\n(?: .*)?)*)", re.MULTILINE)


@dataclass(frozen=True)
class Docstring:
    """The parts of a docstring.

    Attributes:
        summary: Its first sentence or two, on one line.
        body: What follows, up to the first section.
        sections: Text of each section, without its indent.
    """

    summary: str
    body: str
    sections: Mapping[str, str]

    def entries(self, section: str) -> dict[str, str]:
        """Name and text, on one line, of each entry of a section such as ``"Args"``."""
        found = _ENTRY.findall(self.sections.get(section, ""))
        return {name: " ".join(text.split()) for name, text in found}


def read_docstring(fn: Callable[..., Any]) -> Docstring:
    """Take the docstring of a function apart; code spans are marked as in Markdown.

    Args:
        fn: The function; of a ``partial``, the one it is made of.

    Example:
        >>> read_docstring(read_docstring).summary
        'Take the docstring of a function apart; code spans are marked as in Markdown.'
    """
    fn = fn.func if isinstance(fn, partial) else fn
    text = (inspect.getdoc(fn) or "").replace("``", "`")
    prose, *rest = _SECTION.split(text)
    summary, _, body = prose.partition("\n\n")
    sections = {name: inspect.cleandoc(part) for name, part in zip(rest[::2], rest[1::2], strict=True)}
    return Docstring(" ".join(summary.split()), body.strip(), sections)
