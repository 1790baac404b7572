"""One progress bar for candidates, one for images."""

from types import TracebackType

from tqdm.auto import tqdm


class Progress:
    """Two bars, or silence.

    Args:
        n_candidates: Length of the upper bar.
        n_images: Length of the lower one: images to be run, over all candidates; None if unknown.
        shown: Whether to draw anything.
    """

    def __init__(self, n_candidates: int, n_images: int | None, shown: bool) -> None:
        self._candidates = tqdm(total=n_candidates, desc="candidates", unit="model", disable=not shown)
        self._images = tqdm(total=n_images, desc="images", unit="img", disable=not shown, leave=False)

    def candidate(self, name: str) -> None:
        """Say which candidate is at work."""
        self._candidates.set_postfix_str(name)

    def candidate_done(self) -> None:
        """One candidate is finished."""
        self._candidates.update()

    def images_done(self, n: int) -> None:
        """``n`` more images went through a network."""
        self._images.update(n)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._images.close()
        self._candidates.close()
