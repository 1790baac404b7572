"""Names that other people chose, made safe to stand in Markdown."""

import re
import unicodedata
from collections.abc import Iterable

_SPECIAL = re.compile(r"([\\`*\[\]<>|~$&]|(?<![^\W_])_|_(?![^\W_]))")
_BLOCK = re.compile(r"^(?:([#+=-])|(\d+)([.)])(?=\s|$))")  # begins a heading, a list or a rule
_JOINERS = "\u200c\u200d"  # of letters and of emoji; other invisible characters can turn a line around


def one_line(text: str) -> str:
    r"""The text on one line, without control characters and with nothing that UTF-8 cannot hold.

    Example:
        >>> one_line("a\n\t b\udcff")
        'a b�'
    """
    return " ".join("".join(map(_visible, text)).split())


def _visible(character: str) -> str:
    kind = unicodedata.category(character)
    if kind == "Cs":  # a file name that is no UTF-8
        return "\ufffd"
    if kind == "Cf":
        return character if character in _JOINERS else ""
    return " " if kind in {"Cc", "Zl", "Zp"} else character


def escaped(text: str) -> str:
    r"""The text as running text or a table's cell, with nothing in it taken for Markdown, HTML or a formula.

    Example:
        >>> escaped("1. *a*|<b>")
        '1\\. \\*a\\*\\|\\<b\\>'
    """
    return _BLOCK.sub(r"\2\\\1\3", _SPECIAL.sub(r"\\\1", one_line(text)))


def code(text: str) -> str:
    """The text as a code span.

    Example:
        >>> code("a"), code("`")
        ('`a`', '`` ` ``')
    """
    text = one_line(text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def code_cell(text: str) -> str:
    """The text as a code span in a table, where a bar ends the cell even in code."""
    return code(text).replace("|", "\\|")


def listed(names: Iterable[str]) -> str:
    """Names in a row, as running text."""
    return ", ".join(map(escaped, names))
