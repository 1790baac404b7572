"""``Pool``: single samples to choose from, read in blocks, some of them on each of several processes."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor

_BLOCK = 8192  # rows


def _alone(item: Any) -> list[Any]:
    return [item]


@dataclass(frozen=True, eq=False)
class Pool:
    """Samples of one data set.

    Attributes:
        blocks: Yields the features of this process's samples, each time the same in the same order, in blocks
            ``(any, d)`` of any float type. A process may have none.
        rows: Number of each of them in the data set, shape ``(n_local,)`` int64, ascending.
        gather: Takes an object of this process to a list of those of all processes, on each of them. All processes
            must make the same calls in the same order.
        is_main: Whether this is the first of the processes.
    """

    blocks: Callable[[], Iterable[Tensor]]
    rows: Tensor
    gather: Callable[[Any], list[Any]] = _alone
    is_main: bool = True
    _all_rows: list[Tensor] = field(default_factory=list, init=False, repr=False)

    @staticmethod
    def of(features: Tensor | Callable[[], Iterable[Tensor]]) -> "Pool":
        """The samples of one process, numbered from 0.

        Example:
            >>> len(Pool.of(torch.ones(3, 2)))
            3
        """
        blocks = features if callable(features) else lambda: features.detach().split(_BLOCK)
        return Pool(blocks, torch.arange(sum(len(block) for block in blocks())))

    @property
    def all_rows(self) -> Tensor:
        """Row numbers of all processes, shape ``(n,)``, ascending; they are gathered once."""
        if not self._all_rows:
            self._all_rows.append(torch.cat(self.gather(self.rows)).sort().values)
        return self._all_rows[0]

    def __len__(self) -> int:
        return len(self.all_rows)

    @property
    def places(self) -> Tensor:
        """Place of each of this process's samples among all, in row order, shape ``(n_local,)``."""
        return torch.searchsorted(self.all_rows, self.rows)

    def numbered(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield each block that is not empty, on the CPU, with the positions of its samples on this process."""
        start = 0
        for block in self.blocks():
            if len(block):
                yield slice(start, start + len(block)), block.detach().cpu()
            start += len(block)

    def check(self, *, lengths: bool = True, width: int | None = None, remedy: str = "") -> None:
        """Look at every sample once, so that no process fails alone later.

        Args:
            lengths: Whether rows of zeros, which have no direction, are refused too.
            width: Features that there must be.
            remedy: What else to do about rows of zeros.

        Raises:
            ValueError: If a row of any process is not finite, not of this width or, with ``lengths``, all zero.
        """
        infinite, zero, widths = list[int](), list[int](), list[int]()
        for at, block in self.numbered():
            largest = torch.linalg.vector_norm(block, torch.inf, dim=1)
            infinite += self.rows[at][~largest.isfinite()].tolist()
            zero += self.rows[at][largest == 0].tolist() if lengths else []
            widths += [block.shape[1]] if block.shape[1] != width else []
        everywhere = zip(*self.gather((infinite, zero, widths)), strict=True)
        infinite, zero, widths = (sorted(chain.from_iterable(lists)) for lists in everywhere)
        if widths and width is not None:
            raise ValueError(
                f"`source` and `target` must have one width, got {widths[0]} and {width} features. "
                "Take both from one checkpoint and layer."
            )
        if infinite:
            raise ValueError(
                f"`features` must be finite, got {len(infinite)} rows with NaN or infinity. The first is row "
                f"{infinite[0]}: check the checkpoint and its preprocessing."
            )
        if zero:
            raise ValueError(
                f"`features` must have no row of zeros, got {len(zero)}. The first is row {zero[0]}: leave them out"
                f"{remedy}."
            )

    def at(self, places: Tensor) -> Tensor:
        """Return the features at some ascending places among all samples, on every process."""
        own = self.places
        inside = torch.isin(own, places)
        found = [block[inside[at]] for at, block in self.numbered() if inside[at].any()]
        everywhere = self.gather((torch.cat(found) if found else None, own[inside]))
        theirs = [(features, at) for features, at in everywhere if features is not None]
        if len(theirs) == 1:
            return theirs[0][0]
        order = torch.cat([at for _, at in theirs]).argsort()
        return torch.cat([features for features, _ in theirs])[order]

    def total(self, values: Tensor | None) -> Tensor:
        """Sum over all processes; None of a process that has nothing to add."""
        return torch.stack([one for one in self.gather(values) if one is not None]).sum(dim=0)

    def log_total(self, log_values: Tensor) -> Tensor:
        """Return the logarithm of the sum over all processes of the exponentials."""
        return torch.stack(self.gather(log_values)).logsumexp(dim=0)

    def mean(self) -> Tensor:
        """Mean of all features, shape ``(d,)`` float64."""
        sums = [block.double().sum(dim=0) for _, block in self.numbered()]
        return self.total(torch.stack(sums).sum(dim=0) if sums else None) / len(self)

    def less(self, middle: Tensor) -> "Pool":
        """The same samples with ``middle (d,)`` subtracted."""
        blocks = self.blocks
        return replace(self, blocks=lambda: (block.double().cpu() - middle for block in blocks()))
