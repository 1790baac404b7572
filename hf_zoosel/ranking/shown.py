"""What all records have in common that can be looked at."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hf_zoosel.ranking.content import Content


class Shown:
    """A record that says what it holds in words and numbers, and is shown as text, Markdown, HTML or by rich."""

    __slots__ = ()

    def _content(self) -> "Content":
        """What there is to show."""
        raise NotImplementedError

    def to_markdown(self) -> str:
        """Return the table and what is said below it as GitHub Markdown."""
        from hf_zoosel.ranking.render import to_markdown

        return to_markdown(self._content())

    def __str__(self) -> str:
        from hf_zoosel.ranking.render import to_text

        return to_text(self._content())

    def _repr_html_(self) -> str:
        from hf_zoosel.ranking.render import to_html

        return to_html(self._content())

    def __rich__(self) -> "RenderableType":
        from hf_zoosel.ranking.render import to_rich

        return to_rich(self._content())
