"""Scaling over the candidates of one zoo."""

from torch import Tensor


def minmax(terms: Tensor) -> Tensor:
    """Scale each column of ``terms (m, ...)`` to [0, 1] over the rows; a column that is the same for all becomes 0."""
    low, high = terms.amin(dim=0), terms.amax(dim=0)
    return (terms - low) / (high - low).where(high > low, terms.new_ones(()))
