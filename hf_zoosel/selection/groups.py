"""Classes, or clusters, of a data set as one checkpoint sees them: mean features, sizes and names."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Groups:
    """Classes or clusters of a source or of a target, each one row.

    Args:
        means: Mean feature of each group, shape ``(k, d)``, floats; kept on the CPU.
        counts: Number of samples of each group, shape ``(k,)``, int64, at least 1.
        names: Names of the groups; two may share one (ImageNet has two cranes).

    Raises:
        ValueError: If shapes disagree, a group is empty, or a mean is not finite or all zero.
        TypeError: If means are not floats, counts not integers or names not strings.

    Example:
        >>> Groups(torch.eye(2), torch.tensor([50, 30]), ("cat", "dog")).weights("counts").tolist()
        [0.625, 0.375]
    """

    means: Tensor
    counts: Tensor
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        _check_types(self)
        object.__setattr__(self, "means", self.means.detach().cpu())
        object.__setattr__(self, "counts", self.counts.detach().cpu().long())
        _check(self)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def n_features(self) -> int:
        """Width of the features."""
        return self.means.shape[1]

    def weights(self, kind: str) -> Tensor:
        """Return the weight of each group, ``(k,)`` float64: ``ones``, ``uniform`` (1/k) or ``counts`` (its share)."""
        if kind == "counts":
            return self.counts.double() / self.counts.sum()
        return torch.full((len(self),), 1.0 if kind == "ones" else 1.0 / len(self), dtype=torch.float64)

    def canonical_order(self) -> list[int]:
        """Return positions by name, groups of one name by their means: the same for any order they come in."""
        shared = {name for name, count in Counter(self.names).items() if count > 1}
        if not shared:
            return sorted(range(len(self)), key=self.names.__getitem__)

        def key(i: int) -> tuple[str, list[float]]:
            return self.names[i], self.means[i].tolist() if self.names[i] in shared else []

        return sorted(range(len(self)), key=key)

    def take(self, order: Sequence[int]) -> "Groups":
        """Return the groups at these positions, in this order."""
        if list(order) == list(range(len(self))):
            return self
        at = torch.as_tensor(order, dtype=torch.int64)
        return Groups(self.means[at], self.counts[at], tuple(self.names[i] for i in order))


def group(features: Tensor, labels: Tensor, names: Sequence[str]) -> Groups:
    """Average the features of every class.

    Args:
        features: Shape ``(n_samples, n_features)``, any float type; sums are in float64.
        labels: Class of each sample, shape ``(n_samples,)``, integers that index ``names``.
        names: Names of the classes.

    Returns:
        The classes, float64, on the CPU.

    Raises:
        ValueError: If a label has no name or a class has no sample, or as ``Groups``.

    Example:
        >>> group(torch.tensor([[1.0], [3.0], [8.0]]), torch.tensor([0, 0, 1]), ("a", "b")).means.tolist()
        [[2.0], [8.0]]
    """
    if labels.shape != (len(features),):
        raise ValueError(
            f"`labels` must have shape ({len(features)},), one per row of `features`, got {tuple(labels.shape)}."
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(names):
        raise ValueError(
            f"`labels` must be in 0..{len(names) - 1}, as there are {len(names)} names, got "
            f"{int(labels.min())}..{int(labels.max())}."
        )
    counts = labels.long().bincount(minlength=len(names))
    sums = torch.zeros(len(names), features.shape[1], dtype=torch.float64, device=features.device)
    sums.index_add_(0, labels.long(), features.double())
    return Groups(sums / counts[:, None], counts, tuple(names))


def _check_types(groups: Groups) -> None:
    for name in ("means", "counts"):
        values = getattr(groups, name)
        floats = isinstance(values, Tensor) and values.is_floating_point()
        if not isinstance(values, Tensor) or floats != (name == "means"):
            kind = values.dtype if isinstance(values, Tensor) else type(values).__name__
            wanted = "floats" if name == "means" else "integers"
            raise TypeError(f"`{name}` must be a torch tensor of {wanted}, got {kind}.")
    wrong = [name for name in groups.names if not isinstance(name, str)]
    if wrong:
        raise TypeError(f"`names` must be strings, got {wrong[0]!r}. Write `str(name)`.")


def _check(groups: Groups) -> None:
    means, counts = groups.means, groups.counts
    if means.ndim != 2 or 0 in means.shape or counts.shape != means.shape[:1] or len(groups) != len(means):
        raise ValueError(
            f"`means` must be (k, d) with k counts and k names, k and d at least 1, got shapes {tuple(means.shape)}, "
            f"{tuple(counts.shape)} and {len(groups)} names."
        )
    largest = torch.linalg.vector_norm(means, torch.inf, dim=1)
    for bad, what, remedy in (
        (counts < 1, "hold at least 1 sample each", "Leave empty classes out, or read more of the data"),
        (~largest.isfinite(), "have finite means", "Check the checkpoint and its preprocessing"),
        (largest == 0, "have means with a length", "All their features are 0: take another layer or checkpoint"),
    ):
        if bad.any():
            first = [groups.names[i] for i in bad.nonzero().flatten()[:5].tolist()]
            raise ValueError(
                f"`means` must be of groups that {what}, got {int(bad.sum())} that do not: {first}. {remedy}."
            )
