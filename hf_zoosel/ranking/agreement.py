"""How far the metrics of a ranking agree: pair by pair, and all together."""

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hf_zoosel.ranking.record import Ranking

if TYPE_CHECKING:
    import pandas as pd


def agreement(ranking: Ranking) -> "pd.DataFrame":
    """Kendall's tau-b between every two metrics, see ``Ranking.agreement``."""
    import pandas as pd
    from scipy.stats import kendalltau

    scores = _scores(ranking)  # (m, q)
    table = np.full((scores.shape[1],) * 2, math.nan)
    for i, j in np.ndindex(table.shape):
        both = np.isfinite(scores[:, i]) & np.isfinite(scores[:, j])
        if both.sum() > 1:
            table[i, j] = kendalltau(scores[both, i], scores[both, j]).statistic
    return pd.DataFrame(table, index=list(ranking.metrics), columns=list(ranking.metrics))


def concordance(ranking: Ranking) -> float | None:
    """Kendall's W of all metrics, see ``Ranking.concordance``."""
    from scipy.stats import rankdata

    scores = _scores(ranking)
    scores = scores[:, np.isfinite(scores).any(axis=0)]
    scores = scores[np.isfinite(scores).all(axis=1)]
    m, q = scores.shape  # candidates, metrics
    if m < 2 or q < 2:
        return None
    ranks = rankdata(scores, axis=0)
    sums = ranks.sum(axis=1)
    ties = sum(float((sizes**3 - sizes).sum()) for sizes in map(_tie_sizes, scores.T))
    possible = q**2 * (m**3 - m) - q * ties
    return None if possible == 0 else float(12 * ((sums - sums.mean()) ** 2).sum() / possible)


def _scores(ranking: Ranking) -> NDArray[np.float64]:
    """Score of each candidate by each metric, NaN where there is none, ``(n_candidates, n_metrics)``."""
    scores = [[candidate.scores.get(metric) for metric in ranking.metrics] for candidate in ranking]
    values = [[math.nan if score is None else score.value for score in row] for row in scores]
    return np.array(values, dtype=np.float64).reshape(len(ranking), len(ranking.metrics))


def _tie_sizes(values: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.unique(values, return_counts=True)[1].astype(np.int64)
