"""One content in four dresses: text, rich renderable, Markdown and HTML.

Records import this file, and with it rich, when they are shown.
"""

import html
import io
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich.box import Box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.table import Table
from rich.text import Text

from hf_zoosel.ranking.content import Column, Content

_TEXT_WIDTH = 200  # columns of plain text where there is no terminal
_NAME_WIDTH, _NARROW_NAME_WIDTH = 60, 32
_GAP = 2  # characters between columns


def to_text(content: Content) -> str:
    """Return plain text as wide as the terminal, or up to 200 columns where there is none."""
    in_terminal = sys.stdout is not None and sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if in_terminal else _TEXT_WIDTH
    file = io.StringIO()
    console = Console(
        file=file, width=width, color_system=None, force_terminal=False, force_jupyter=False, legacy_windows=False
    )
    console.print(to_rich(content))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def to_rich(content: Content) -> RenderableType:
    """Return a renderable that fits itself to the console and never cuts anything off."""
    parts: list[RenderableType] = [Text(content.title, style="bold"), _Stacked(content.columns)]
    if content.legend:
        parts += [Text(""), Text(content.legend, style="dim")]
    for heading, items in content.sections:
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=1)
        grid.add_column(overflow="fold")
        for item in items:
            grid.add_row("-", Text(item))
        parts += [Text(""), Text(heading, style="bold"), grid]
    return Group(*parts)


@dataclass(frozen=True)
class _Stacked:
    """The table; columns that do not fit beside the others follow below, the first two of all (rank, name) again."""

    columns: list[Column]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        widths = [max(map(cell_len, (column.name, *column.cells))) for column in self.columns]
        names = min(widths[1], _NAME_WIDTH)
        if sum(widths) - widths[1] + names + _GAP * len(widths) > options.max_width:
            names = min(names, _NARROW_NAME_WIDTH)
        for block in _packed(widths[2:], options.max_width - widths[0] - names - 2 * _GAP):
            yield ""
            yield self._table([*self.columns[:2], *(self.columns[2 + i] for i in block)], names)

    def _table(self, columns: list[Column], names: int) -> Table:
        blank = "    \n"  # a rule below the header only, in characters that every log file has
        box = Box(blank * 2 + " -- \n" + blank * 5, ascii=True)
        table = Table(box=box, show_edge=False, padding=(0, 1, 0, 0), header_style="bold")
        for column in columns:
            table.add_column(
                Text(column.name),
                justify="left" if column.left else "right",
                overflow="fold",
                max_width=names if column is self.columns[1] else None,
            )
        for row in zip(*(column.cells for column in columns), strict=True):
            table.add_row(*map(Text, row), style="bold" if row[0] == "1" else "")
        return table


def _packed(widths: list[int], room: int) -> list[list[int]]:
    """Fill lines of ``room`` characters with columns in order, at least one in each."""
    lines: list[list[int]] = [[]]
    used = 0
    for i, width in enumerate(widths):
        if lines[-1] and used + width + _GAP > room:
            lines.append([])
            used = 0
        lines[-1].append(i)
        used += width + _GAP
    return lines


def to_markdown(content: Content) -> str:
    """Return GitHub Markdown."""
    lines = [f"**{_markdown(content.title)}**", ""]
    header = [_markdown(column.name) for column in content.columns]
    rows = zip(*(map(_markdown, column.cells) for column in content.columns), strict=True)
    align = [":---" if column.left else "---:" for column in content.columns]
    lines += [f"| {' | '.join(row)} |" for row in (header, align, *rows)]
    if content.legend:
        lines += ["", _markdown(content.legend)]
    for heading, items in content.sections:
        lines += ["", f"**{_markdown(heading)}**", "", *(f"- {_markdown(item)}" for item in items)]
    return "\n".join(lines) + "\n"


def to_html(content: Content) -> str:
    """Return an HTML fragment; every name and reason is escaped."""

    def row(tag: str, cells: Iterable[str]) -> str:
        style = "text-align: left; overflow-wrap: anywhere; max-width: 40em"
        return "<tr>" + "".join(f'<{tag} style="{style}">{html.escape(cell)}</{tag}>' for cell in cells) + "</tr>"

    header = row("th", (column.name for column in content.columns))
    body = "".join(row("td", cells) for cells in zip(*(column.cells for column in content.columns), strict=True))
    sections = "".join(
        f"<p><b>{html.escape(heading)}</b></p><ul>{''.join(f'<li>{html.escape(item)}</li>' for item in items)}</ul>"
        for heading, items in content.sections
    )
    legend = f"<p><small>{html.escape(content.legend)}</small></p>" if content.legend else ""
    return (
        f'<div class="hf-zoosel"><p><b>{html.escape(content.title)}</b></p>'
        f"<table><thead>{header}</thead><tbody>{body}</tbody></table>{legend}{sections}</div>"
    )


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*|<>~$]|\[(?![-\d])|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", text)
