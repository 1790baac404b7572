"""Consensus: where do the metrics agree a candidate stands?"""

import torch
from torch import Tensor


def consensus(scores: Tensor) -> Tensor:
    """Mean place of each candidate over several metrics, 1 for first everywhere and 0 for last everywhere.

    Places are used, not scores: the metrics' units have nothing in common. Equal scores share the mean of their
    places. A metric that has no score of a candidate says nothing about it, and ranks the others among themselves; one
    that scores fewer than two candidates is left out. The Borda count, normalised.

    Args:
        scores: Of each candidate by each metric, shape ``(n_candidates, n_metrics)``, higher is better, NaN
            where there is none.

    Returns:
        Shape ``(n_candidates,)``, float64, in [0, 1]; 0.5 for a candidate no metric can place.

    Raises:
        ValueError: If ``scores`` are not a matrix.

    Reference:
        de Borda, "Memoire sur les elections au scrutin", 1781; over transferability metrics in Chaves et al.,
        "Back to the basics", 2024.

    Example:
        >>> consensus(torch.tensor([[0.9, 12.0], [0.5, 15.0], [0.1, 11.0]])).tolist()
        [0.75, 0.75, 0.0]
    """
    if scores.ndim != 2:
        raise ValueError(f"`scores` must be (n_candidates, n_metrics), got shape {tuple(scores.shape)}.")
    there = ~scores.isnan()
    below = (scores[:, None] > scores) & there[:, None] & there  # (m, m, q)
    level = (scores[:, None] == scores) & there[:, None] & there
    others = there.sum(dim=0) - 1  # (q,)
    beaten = below.sum(dim=1).double() + (level.sum(dim=1).double() - 1) / 2  # (m, q)
    counted = there & (others > 0)
    places = torch.where(counted, beaten / others.clamp_min(1), 0.0)
    n = counted.sum(dim=1)
    return torch.where(n > 0, places.sum(dim=1) / n.clamp_min(1), 0.5)


def own_scores(scores: tuple[float, ...]) -> tuple[float, ...]:
    """A candidate's terms of ``consensus``: its scores by the other metrics, as they are."""
    return scores
