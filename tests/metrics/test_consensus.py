import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from scipy.stats import rankdata

from hf_zoosel.metrics.consensus import consensus

matrices = st.tuples(st.integers(1, 6), st.integers(1, 5)).flatmap(
    lambda shape: st.lists(
        st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.5, math.nan]), min_size=shape[1], max_size=shape[1]),
        min_size=shape[0],
        max_size=shape[0],
    )
)


def consensus_as_written(scores):
    """Borda's count, metric by metric and candidate by candidate."""
    m, q = scores.shape
    places = [[] for _ in range(m)]
    for metric in range(q):
        have = [i for i in range(m) if not math.isnan(scores[i, metric])]
        if len(have) < 2:
            continue
        for i, rank in zip(have, rankdata(scores[have, metric]), strict=True):
            places[i].append((rank - 1) / (len(have) - 1))
    return [sum(some) / len(some) if some else 0.5 for some in places]


@given(matrices)
def test_it_is_the_mean_normalised_borda_count(rows):
    scores = np.asarray(rows, dtype=float)
    assert consensus(torch.from_numpy(scores)).tolist() == pytest.approx(consensus_as_written(scores), abs=1e-12)


def test_units_do_not_matter():
    scores = torch.tensor([[0.1, 5.0, -3.0], [0.4, 2.0, -1.0], [0.2, 9.0, -2.0]])
    assert torch.equal(consensus(scores), consensus(scores * torch.tensor([1e6, 1e-6, 3.0]) + 7))


def test_first_everywhere_is_one_and_last_everywhere_is_zero():
    assert consensus(torch.tensor([[3.0, 30.0], [2.0, 20.0], [1.0, 10.0]])).tolist() == [1.0, 0.5, 0.0]


def test_one_candidate_alone_has_no_place():
    assert consensus(torch.tensor([[3.0, 1.0]])).tolist() == [0.5]


def test_other_than_a_matrix_is_refused():
    with pytest.raises(ValueError, match=r"must be \(n_candidates, n_metrics\), got shape \(3,\)"):
        consensus(torch.rand(3))
