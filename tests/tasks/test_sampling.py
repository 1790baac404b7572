from collections import Counter

import numpy as np
import pytest
from hypothesis import given, strategies as st

from hf_zoosel.tasks.sampling import Reservoir, draw_rows

codes_of_rows = st.lists(st.integers(-1, 4), max_size=200).map(lambda codes: np.array(codes, dtype=np.int64))
seeds = st.integers(0, 2**32)


def drawn_literally(codes, k, seed):
    """One priority per row, in row order; of each class the rows of the k smallest."""
    rng = np.random.default_rng(seed)
    priority = [rng.random() for _ in codes]
    kept = []
    for code in set(codes.tolist()) - {-1}:
        kept += sorted((row for row in range(len(codes)) if codes[row] == code), key=priority.__getitem__)[:k]
    return sorted(kept)


@given(codes_of_rows, st.integers(1, 30), seeds)
def test_equals_the_literal_transcription(codes, k, seed):
    assert draw_rows(codes, k, seed).tolist() == drawn_literally(codes, k, seed)


@given(codes_of_rows, st.integers(1, 30), seeds)
def test_a_stream_draws_the_rows_of_its_data_set(codes, k, seed):
    reservoir = Reservoir(k, seed)
    for row, code in enumerate(codes.tolist()):
        reservoir.offer(row, code, row)
    rows, kept_codes, images = reservoir.finish(None)
    assert rows.tolist() == draw_rows(codes, k, seed).tolist()
    assert kept_codes.tolist() == codes[rows].tolist()
    assert len(images) == len(rows)


@given(codes_of_rows, st.integers(1, 10), st.integers(0, 10), seeds)
def test_a_smaller_draw_lies_within_a_larger_one(codes, k, more, seed):
    assert set(draw_rows(codes, k, seed)) <= set(draw_rows(codes, k + more, seed))


@given(codes_of_rows, st.integers(1, 30), seeds)
def test_every_class_gives_what_it_has_up_to_the_cap(codes, k, seed):
    drawn, available = Counter(codes[draw_rows(codes, k, seed)].tolist()), Counter(codes[codes >= 0].tolist())
    assert drawn == {code: min(count, k) for code, count in available.items()}


def test_no_cap_draws_every_labelled_row():
    assert draw_rows(np.array([2, -1, 0, 2]), None, 0).tolist() == [0, 2, 3]


def test_another_seed_draws_other_rows():
    codes = np.zeros(1000, dtype=np.int64)
    assert set(draw_rows(codes, 25, 0)) != set(draw_rows(codes, 25, 1))


def test_every_row_is_equally_likely_to_be_drawn():
    codes = np.repeat([0, 1], 10)
    hits = sum(np.bincount(draw_rows(codes, 3, seed), minlength=20) for seed in range(2000))
    assert hits == pytest.approx(600, abs=5 * np.sqrt(2000 * 0.3 * 0.7))
