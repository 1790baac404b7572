import numpy as np
import pytest
import torch

from hf_zoosel.selection import Groups, select_groups


def make_groups(n, d=16, *, seed=0, prefix="s", means=None):
    """Groups with non-negative random means, as pooled features after a ReLU are."""
    rng = np.random.default_rng(seed)
    means = np.abs(rng.normal(size=(n, d))) if means is None else means
    names = tuple(f"{prefix}{i:03d}" for i in range(n))
    return Groups(torch.as_tensor(means), torch.from_numpy(rng.integers(5, 100, size=n)), names)


def planted(n=30, m=8, *, noise=0.005, seed=0):
    """A source of n orthogonal classes and a target of m of them, in another order, with noise; and which ones."""
    rng = np.random.default_rng(seed)
    at = rng.permutation(n)[:m]
    target = np.eye(n)[at] + noise * rng.normal(size=(m, n))
    return make_groups(n, means=np.eye(n)), make_groups(m, means=target, prefix="t"), at.tolist()


@pytest.fixture(scope="session")
def selection():
    return select_groups(make_groups(40), make_groups(7, seed=1, prefix="t"), k=10)
