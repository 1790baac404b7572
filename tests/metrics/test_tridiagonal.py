import pytest
import torch

from hf_zoosel.metrics._tridiagonal import Tridiagonal

SIZES = [1, 2, 3, 40, 150]


def gram(size, rank, seed=0):
    factor = torch.randn(size, rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return factor @ factor.T


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("rank", [1, 200])
def test_the_eigenvalues_are_those_of_the_full_decomposition(size, rank):
    matrix = gram(size, rank)
    expected = torch.linalg.eigvalsh(matrix)
    found = Tridiagonal.of(matrix.clone()).values
    assert found.numpy() == pytest.approx(expected.numpy(), abs=1e-13 * expected[-1].item())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("share", [1, 2, 20])
def test_the_leading_vectors_are_orthonormal_eigenvectors(size, share):
    matrix, count = gram(size, 200), max(1, size // share)
    decomposed = Tridiagonal.of(matrix.clone())
    values, vectors = decomposed.values[-count:], decomposed.leading(count)
    assert vectors.shape == (size, count)
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(count).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(matrix @ vectors, vectors * values, rtol=0, atol=1e-12 * values[-1].item())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("rank", [1, 200])
def test_projections_are_the_products_with_all_eigenvectors(size, rank):
    matrix = gram(size, rank)
    columns = torch.randn(size, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    decomposed = Tridiagonal.of(matrix.clone())
    squares = decomposed.projections(columns).square()
    assert squares.sum(dim=0).numpy() == pytest.approx(columns.square().sum(dim=0).numpy(), rel=1e-12)
    quadratic = (columns * (matrix @ columns)).sum(dim=0)
    assert (decomposed.values @ squares).numpy() == pytest.approx(quadratic.numpy(), rel=1e-11)


def test_a_matrix_of_zeros_has_zeros_only():
    decomposed = Tridiagonal.of(torch.zeros(4, 4, dtype=torch.float64))
    assert not decomposed.values.any()
    assert decomposed.projections(torch.eye(4).double()).square().sum() == pytest.approx(4)
