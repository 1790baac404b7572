import pytest
import torch

from hf_zoosel.metrics._blocks import sum_of_grams
from hf_zoosel.metrics._triangles import add_gram, inverse_of, times_rows


def matrix(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LAYOUTS = {
    "rows first": lambda: matrix(30, 7),
    "columns first": lambda: matrix(7, 30).T,
    "every other column": lambda: matrix(30, 14)[:, ::2],
    "one row": lambda: matrix(1, 7),
}


@pytest.mark.parametrize("piece", [make() for make in LAYOUTS.values()], ids=LAYOUTS)
def test_a_gram_is_added_above_the_diagonal_whatever_the_layout(piece):
    before = piece.clone()
    upper = torch.ones(7, 7, dtype=torch.float64)
    add_gram(upper, piece)
    torch.testing.assert_close(upper.triu(), (1 + piece.T @ piece).triu(), rtol=1e-13, atol=1e-13)
    assert torch.equal(piece, before)


@pytest.mark.parametrize("size", [1, 7, 192, 193, 400])
def test_a_sum_of_grams_is_whole_and_exactly_symmetric(size):
    pieces = [matrix(20, size, seed=seed) for seed in range(3)]
    gram = sum_of_grams(iter(pieces), size, torch.device("cpu"))
    torch.testing.assert_close(gram, sum(piece.T @ piece for piece in pieces), rtol=1e-12, atol=1e-12)
    assert torch.equal(gram, gram.T)


@pytest.mark.parametrize("size", [1, 2, 50])
def test_a_triangle_is_inverted_and_applied_to_rows(size):
    lower = torch.linalg.cholesky(matrix(size, size) @ matrix(size, size).T + size * torch.eye(size).double())
    inverse = inverse_of(lower)
    assert not inverse.triu(1).any()
    torch.testing.assert_close(inverse @ lower, torch.eye(size).double(), rtol=0, atol=1e-12)
    rows = matrix(11, size, seed=1)
    torch.testing.assert_close(times_rows(lower, rows), rows @ lower.T, rtol=1e-12, atol=1e-12)
