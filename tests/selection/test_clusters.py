import numpy as np
import pytest
import torch

from hf_zoosel.selection import cluster, group


def blobs(n=200, k=5, d=8, *, seed=0, spread=0.02):
    """Rows around k orthogonal directions, of different lengths, in groups of different sizes; and whose they are."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(k, n, p=np.arange(1, k + 1) / (k * (k + 1) / 2))
    labels[:k] = range(k)
    rows = (np.eye(k, d)[labels] + spread * rng.normal(size=(n, d))) * rng.uniform(0.5, 20, size=(n, 1))
    return torch.from_numpy(rows).float(), torch.from_numpy(labels)


def same_partition(one, other):
    pairs = set(zip(one.tolist(), other.tolist(), strict=True))
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


@pytest.mark.parametrize("seed", range(4))
def test_planted_directions_are_found_whatever_the_lengths(seed):
    rows, labels = blobs(seed=seed)
    found = cluster(rows, 5, seed=seed)
    assert same_partition(found.labels, labels)
    assert found.groups.counts.tolist() == sorted(labels.bincount().tolist(), reverse=True)
    assert found.groups.names == tuple(f"cluster {i}" for i in range(5))


def test_means_are_of_the_features_as_they_came():
    rows, _ = blobs()
    found = cluster(rows, 5)
    wanted = group(rows, found.labels, found.groups.names)
    np.testing.assert_allclose(found.groups.means, wanted.means, rtol=1e-12)


def test_rows_in_any_order_and_any_blocks_give_the_same_clusters():
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(300, 6)))
    one = cluster(rows, 12, seed=1)
    order = torch.from_numpy(np.random.default_rng(1).permutation(300))
    other = cluster(lambda: rows[order].split(7), 12, seed=1)
    assert torch.equal(other.labels, one.labels[order])
    np.testing.assert_allclose(other.groups.means, one.groups.means, rtol=1e-12)
    assert torch.equal(cluster(rows, 12, seed=1).labels, one.labels)
    assert not same_partition(cluster(rows, 12, seed=2).labels, one.labels)


def test_centres_fitted_on_some_rows_serve_all_of_them():
    rows, labels = blobs(n=2000)
    found = cluster(rows, 5, rows_per_cluster=20, seed=0)
    assert len(found.labels) == 2000
    assert same_partition(found.labels, labels)


def test_mini_batches_find_planted_directions_too():
    rows, labels = blobs(n=25_000)
    found = cluster(rows, 5, rows_per_cluster=10_000)
    assert same_partition(found.labels, labels)


def test_without_normalisation_lengths_matter():
    rows = torch.tensor([[1.0, 1.0], [1.1, 1.1], [50.0, 50.0], [51.0, 51.0], [0.0, 0.0]])
    found = cluster(rows, 2, normalize=False)
    assert found.labels.tolist() == [0, 0, 1, 1, 0]


def test_rows_that_coincide_give_fewer_clusters():
    rows = torch.eye(3).repeat(10, 1)
    found = cluster(rows, 7)
    assert sorted(found.groups.counts.tolist()) == [10, 10, 10]
    assert len(cluster(torch.ones(4, 2), 4).groups) == 1


def test_as_many_clusters_as_rows_are_the_rows():
    rows, _ = blobs(n=20)
    found = cluster(rows, 20)
    assert found.groups.counts.tolist() == [1] * 20


@pytest.mark.parametrize(
    ("rows", "n_clusters", "text"),
    [
        (torch.ones(3, 2), 0, "`n_clusters` must be from 1 to the 3 samples, got 0"),
        (torch.ones(3, 2), 4, "`n_clusters` must be from 1 to the 3 samples, got 4"),
        (torch.ones(0, 2), 1, "from 1 to the 0 samples"),
        (torch.tensor([[1.0], [float("nan")]]), 1, "`features` must be finite"),
        (torch.tensor([[1.0], [0.0]]), 1, r"no row of zeros, got 1\. .*normalize=False"),
    ],
)
def test_what_makes_no_sense_is_refused(rows, n_clusters, text):
    with pytest.raises(ValueError, match=text):
        cluster(rows, n_clusters)
    with pytest.raises(ValueError, match="`rows_per_cluster` must be at least 1, got 0"):
        cluster(rows, n_clusters, rows_per_cluster=0)


def test_global_random_state_is_left_alone():
    before = torch.get_rng_state().clone(), np.random.get_state()[1].copy()  # noqa: NPY002
    rows, _ = blobs()
    cluster(rows, 5)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
