"""Class means and variances of rows that come a chunk at a time, on any number of processes, in any order."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from hf_zoosel.features.team import Team
from hf_zoosel.zoo import CandidateError

_GATHERED = 8 << 20  # bytes of means a process sends at a time


@dataclass
class ClassSums:
    """Counts, means and summed squared deviations of each class, float64.

    Batches are combined by the formulas of Chan, Golub & LeVeque (1979), "Updating Formulae and a Pairwise Algorithm
    for Computing Sample Variances", https://doi.org/10.1007/978-3-642-51461-6_3, which lose no digits where means are
    large beside deviations. Takes ``16 d`` bytes a class, three times that while it makes room for more classes.

    Attributes:
        counts: Samples of each class, ``(k,)`` int64; classes without any have means of 0.
        means: ``(k, d)``.
        squares: Summed squared deviations from the means, ``(k, d)``.

    Example:
        >>> sums = ClassSums()
        >>> sums.add(torch.tensor([[1.0], [2.0], [6.0]]), torch.tensor([1, 0, 1]))
        >>> sums.add(torch.tensor([[4.0]]), torch.tensor([0]))
        >>> sums.counts.tolist(), sums.means.tolist(), sums.squares.tolist()
        ([2, 2], [[3.0], [3.5]], [[2.0], [12.5]])
    """

    _n: int = 0
    _counts: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    _means: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.float64))
    _squares: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.float64))

    @staticmethod
    def of(counts: Tensor, means: Tensor, squares: Tensor) -> "ClassSums":
        """What the attributes of another say."""
        return ClassSums(len(counts), counts, means, squares)

    @property
    def counts(self) -> Tensor:
        """Samples of each class, ``(k,)``."""
        return self._counts[: self._n]

    @property
    def means(self) -> Tensor:
        """Mean of each class, ``(k, d)``."""
        return self._means[: self._n]

    @property
    def squares(self) -> Tensor:
        """Summed squared deviations of each class, ``(k, d)``."""
        return self._squares[: self._n]

    @property
    def width(self) -> int:
        """Width of the features; 0 before there are any."""
        return self._means.shape[1]

    def add(self, features: Tensor, codes: Tensor) -> None:
        """Take a batch: features ``(n, d)`` of any float type, and the class of each, ``(n,)`` int64."""
        if not len(codes):
            return
        present, numbers, counts = codes.unique(return_inverse=True, return_counts=True)
        rows = features.double()
        means = rows.new_zeros(len(present), rows.shape[1]).index_add_(0, numbers, rows) / counts[:, None]
        deviations = (rows - means[numbers]).square_()
        self.combine(present, counts, means, torch.zeros_like(means).index_add_(0, numbers, deviations))

    def combine(self, classes: Tensor, counts: Tensor, means: Tensor, squares: Tensor) -> None:
        """Take other samples of some classes ``(c,)``, no class twice, by their sums."""
        if self.width and means.shape[1] != self.width:
            raise CandidateError(f"its features must be alike in number, got {self.width} and {means.shape[1]}.")
        self._make_room(int(classes.max()) + 1 if len(classes) else 0, means.shape[1])
        before = self._counts[classes]
        total = before + counts
        share = (counts / total.clamp_min(1).double())[:, None]
        delta = means - self._means[classes]
        self._means[classes] += delta * share
        self._squares[classes] += squares + delta.square_() * before[:, None] * share
        self._counts[classes] = total

    def merge(self, other: "ClassSums", places: Sequence[int]) -> None:
        """Take another's samples; ``places[i]`` is the class here of its class ``i``."""
        there = other.counts.nonzero()[:, 0]
        if len(there):
            at = torch.as_tensor(places, dtype=torch.int64)[there]
            self.combine(at, other.counts[there], other.means[there], other.squares[there])

    def _make_room(self, n: int, width: int) -> None:
        self._n = max(self._n, n)
        if self._n <= len(self._counts) and self.width:
            return
        most = max(self._n, 2 * len(self._counts))
        counts, means = torch.zeros(most, dtype=torch.int64), torch.zeros(most, width, dtype=torch.float64)
        squares = torch.zeros_like(means)
        for old, new in ((self._counts, counts), (self._means, means), (self._squares, squares)):
            if old.numel():
                new[: len(old)] = old
        self._counts, self._means, self._squares = counts, means, squares


def sum_over(team: Team, sums: ClassSums, places: Sequence[int]) -> ClassSums:
    """The sums of all processes, on all of them, sent some megabytes at a time.

    Args:
        team: The processes.
        sums: Of this process.
        places: For each of its classes, the number that all processes give it.
    """
    if team.size == 1:
        return sums
    n_classes = max(team.gather(max(places, default=-1) + 1))
    width = max(team.gather(sums.width))
    own, total = ClassSums(), ClassSums()
    own.merge(sums, places)
    at_once = max(1, _GATHERED // (8 * max(1, width)))
    for start in range(0, n_classes, at_once):
        some = slice(start, min(start + at_once, len(own.counts)))
        for counts, means, squares in team.gather((own.counts[some], own.means[some], own.squares[some])):
            there = counts.nonzero()[:, 0]
            if len(there):
                total.combine(start + there, counts[there], means[there].clone(), squares[there])
    return total


@dataclass
class KeptSample:
    """Up to ``per_class`` rows of each class, those with the smallest priorities: the rows ``load_task`` would draw.

    Attributes:
        per_class: How many; 0 for none.
        seed: Of the priorities.
        features: ``(m, d)`` float32.
        codes: Class of each, ``(m,)`` int64.
        rows: Row of each in the split, ``(m,)`` int64.
        priorities: ``(m,)`` float64.
    """

    per_class: int
    seed: int
    features: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    codes: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    rows: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    priorities: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))

    def add(self, features: Tensor, codes: Tensor, rows: Tensor) -> None:
        """Offer a batch of neighbouring rows, some of which may be missing."""
        if self.per_class and len(rows):
            first = int(rows[0])
            drawn = np.random.Generator(np.random.PCG64(self.seed).advance(first)).random(int(rows[-1]) - first + 1)
            self.offer(features, codes, rows, torch.from_numpy(drawn)[rows - first])

    def offer(self, features: Tensor, codes: Tensor, rows: Tensor, priorities: Tensor) -> None:
        """Offer rows with their priorities."""
        if not len(rows):
            return
        all_codes, all_priorities = torch.cat([self.codes, codes]), torch.cat([self.priorities, priorities])
        order = np.lexsort((all_priorities.numpy(), all_codes.numpy()))
        in_order = all_codes.numpy()[order]
        rank = np.arange(len(order)) - np.searchsorted(in_order, in_order)  # within its class
        kept = torch.from_numpy(np.sort(order[rank < self.per_class]))
        self.features = torch.cat([self.features.view(-1, features.shape[1]), features])[kept]
        self.codes, self.rows = all_codes[kept], torch.cat([self.rows, rows])[kept]
        self.priorities = all_priorities[kept]

    def merge(self, other: "KeptSample", places: Sequence[int]) -> None:
        """Take another's sample; ``places[i]`` is the class here of its class ``i``."""
        if len(other.rows):
            codes = torch.as_tensor(places, dtype=torch.int64)[other.codes]
            self.offer(other.features, codes, other.rows, other.priorities)
