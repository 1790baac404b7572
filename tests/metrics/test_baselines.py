import math

import numpy as np
import pytest

from hf_zoosel.metrics import METRICS
from hf_zoosel.metrics.baselines import random_score, size, source_accuracy


def test_more_parameters_are_better_in_millions():
    assert size(25_557_032) == pytest.approx(25.557032)
    assert size(2) > size(1) > 0
    for number in (0, -5):
        with pytest.raises(ValueError, match=f"`n_parameters` must be positive, got {number}"):
            size(number)


def test_the_accuracy_is_its_own_score():
    assert [source_accuracy(value) for value in (0, 0.751, 1)] == [0.0, 0.751, 1.0]
    for value in (-0.01, 75.1, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"must be in \[0, 1\], got .*Divide a percentage by 100"):
            source_accuracy(value)


def test_a_random_score_is_the_candidates_own_and_uniform():
    scores = np.array([random_score(f"org/model-{number}") for number in range(5000)])
    assert len(set(scores)) == 5000
    assert (scores >= 0).all()
    assert (scores < 1).all()
    deciles = np.histogram(scores, bins=10, range=(0, 1))[0]
    assert ((deciles - 500) ** 2 / 500).sum() < 27.9  # chi-squared with 9 degrees of freedom: 1 in 1,000
    assert random_score("org/model-7") == scores[7]


def test_another_seed_draws_another_order():
    names = [f"org/model-{number}" for number in range(40)]
    orders = [sorted(names, key=lambda name, seed=seed: random_score(name, seed=seed)) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


def test_they_are_marked_static_in_the_table_and_nothing_else_is():
    assert {name for name, metric in METRICS.items() if metric.is_static} == {"size", "source_accuracy", "random"}
