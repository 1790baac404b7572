import threading

import numpy as np
import pytest
import torch

from hf_zoosel.selection import Groups, Pool, SourceSelection, cluster, select_groups, select_samples
from hf_zoosel.transport import cosine_cost
from tests.selection.conftest import make_groups
from tests.transport.test_unbalanced import by_pot

METHODS = ["uot", "semi_relaxed", "mean_distance", "nearest", "random"]


def problem(n=60, m=4, d=8, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(np.abs(rng.normal(size=(n, d)))), make_groups(m, d, seed=seed + 1, prefix="t")


def on_processes(pools, work):
    """``work(pool)`` of each pool in a thread of its own, as processes that gather objects."""
    turn, given, results = threading.Barrier(len(pools)), [None] * len(pools), [None] * len(pools)

    def process(rank):
        def gather(item):
            given[rank] = item
            turn.wait(timeout=60)
            everywhere = list(given)
            turn.wait(timeout=60)
            return everywhere

        try:
            results[rank] = work(Pool(pools[rank].blocks, pools[rank].rows, gather, is_main=rank == 0))
        except ValueError as error:
            results[rank] = error
        except BaseException:
            turn.abort()
            raise

    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(len(pools))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def dealt(features, n_processes, size=7):
    """Pools of blocks that are dealt out in turn, as files of features are."""
    blocks = list(zip(features.split(size), torch.arange(len(features)).split(size), strict=True))
    hands = [blocks[rank::n_processes] for rank in range(n_processes)]
    none = torch.zeros(0, dtype=torch.int64)
    return [
        Pool(lambda hand=hand: [block for block, _ in hand], torch.cat([none, *(rows for _, rows in hand)]))
        for hand in hands
    ]


@pytest.mark.parametrize("scale", [0.02, 0.1])
def test_the_rows_with_most_mass_in_a_dense_plan_are_chosen_and_weigh_as_much(scale):
    features, target = problem()
    found = select_samples(Pool.of(lambda: features.split(9)), target, k=10, options={"scale": scale})
    cost = cosine_cost(features, target.means)
    plan = by_pot(cost / scale, torch.ones(60), torch.ones(4), reg=1.0, reg_source=1.0, reg_target=100.0)
    mass = plan.sum(axis=1)
    rows = np.sort(np.argsort(-mass)[:10])
    assert found.rows == tuple(rows)
    assert found.weights == pytest.approx(mass[rows], rel=1e-6)
    assert found.n_effective == pytest.approx(mass.sum() ** 2 / (mass**2).sum(), rel=1e-6)
    assert found.transport_cost == pytest.approx((plan * cost.numpy()).sum() / mass.sum(), rel=1e-6)
    for j, one in enumerate(found.coverage):
        share = plan[:, j] / plan[:, j].sum()
        assert one.share_well + one.share_badly == pytest.approx(share[rows].sum(), rel=1e-6)
        best = rows[np.argsort(-share[rows])[:5]]
        assert [server.index for server in one.served_by] == list(best)
        assert [server.share for server in one.served_by] == pytest.approx(share[best], rel=1e-6)
        assert one.distance == pytest.approx(cost[rows, j].min().item())
        assert one.nearest == f"row {rows[cost[rows, j].argmin()]}"
        assert one.least_distance == pytest.approx(cost[:, j].min().item())


@pytest.mark.parametrize("method", METHODS)
def test_samples_taken_for_classes_of_one_are_chosen_alike(method):
    features, target = problem(seed=3)
    names = tuple(f"row {i:02d}" for i in range(len(features)))
    alone = Groups(features, torch.ones(len(features), dtype=torch.int64), names)
    options = {"center": True} if method != "random" else {}
    expected = select_groups(alone, target, k=12, method=method, options=options, seed=5)
    found = select_samples(Pool.of(features), target, k=12, method=method, options=options, seed=5)
    assert found.rows == tuple(sorted(one.index for one in expected.classes))
    for one, other in zip(found.coverage, expected.coverage, strict=True):
        assert one.distance == pytest.approx(other.distance)
        assert [server.index for server in one.served_by] == [server.index for server in other.served_by]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n_processes", [2, 3, 40])
def test_any_number_of_processes_chooses_the_same(method, n_processes):
    features, target = problem(n=100)
    features[50:60] = features[:10]  # ties, on other processes
    alone = select_samples(Pool.of(features), target, k=15, method=method, seed=1)
    found = on_processes(
        dealt(features, n_processes), lambda pool: select_samples(pool, target, k=15, method=method, seed=1)
    )
    assert all(one == found[0] for one in found)
    assert found[0].rows == alone.rows
    assert found[0].weights == pytest.approx(alone.weights, rel=1e-9)
    for one, other in zip(found[0].coverage, alone.coverage, strict=True):
        assert (one.nearest, one.name) == (other.nearest, other.name)
        assert [server.index for server in one.served_by] == [server.index for server in other.served_by]
        assert one.share_well == (None if other.share_well is None else pytest.approx(other.share_well, rel=1e-9))


@pytest.mark.parametrize("n", [200, 21_000])
def test_any_number_of_processes_finds_the_same_clusters(n):
    features = torch.from_numpy(np.random.default_rng(0).normal(size=(n, 4))).float()
    alone = cluster(features, 6, rows_per_cluster=30)
    for n_processes in (2, 3):
        pools = dealt(features, n_processes, size=64)
        found = on_processes(pools, lambda pool: (pool.rows, cluster(pool, 6, rows_per_cluster=30)))
        labels = torch.empty(n, dtype=torch.int64)
        for rows, clusters in found:
            labels[rows] = clusters.labels
            assert torch.equal(clusters.groups.counts, alone.groups.counts)
            np.testing.assert_allclose(clusters.groups.means, alone.groups.means, rtol=1e-10, atol=1e-12)
        assert torch.equal(labels, alone.labels)


def test_a_bad_row_of_one_process_is_heard_on_all():
    features, target = problem()
    for bad, text in (
        (float("nan"), "1 rows with NaN or infinity. The first is row 41"),
        (0.0, "got 1. The first is"),
    ):
        spoiled = features.clone()
        spoiled[41] = bad
        found = on_processes(dealt(spoiled, 2), lambda pool: select_samples(pool, target, k=3))
        assert all(isinstance(error, ValueError) and text in str(error) for error in found)
        found = on_processes(dealt(spoiled, 2), lambda pool: cluster(pool, 3))
        assert all(isinstance(error, ValueError) and text in str(error) for error in found)


def test_a_selection_of_samples_is_saved_shown_and_drawn(tmp_path):
    features, target = problem()
    found = select_samples(Pool.of(features), target, k=10)
    assert SourceSelection.load(found.save(tmp_path / "selection.json")) == found
    assert len(found) == 10
    assert str(found).startswith("10 of 60 samples of source for target, by uot")
    assert "t000" in str(found)
    assert "The chosen samples carry" in str(found)
    assert len(found.coverage_to_pandas()) == 4
    found.plot(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5_000


def test_a_target_that_is_far_from_every_sample_is_warned_of():
    source = torch.cat([torch.rand(50, 4) + 1, torch.zeros(50, 2)], dim=1)
    away = make_groups(3, means=np.concatenate([np.full((3, 4), 1e-3), 1 + np.eye(3, 2)], axis=1))
    with pytest.warns(UserWarning, match="3 of 3 target classes are further from every source sample"):
        found = select_samples(Pool.of(source), away, k=5)
    assert found.notes[0].startswith("Nothing in the source is near the target")
    assert len(found.badly_served) == 3


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"method": "capacity"}, r"`method` must be one of \['uot', .* for single samples, got 'capacity'"),
        ({"method": "uott"}, "Did you mean 'uot'"),
        ({"k": 61}, "from 1 to the 60 samples of the source, got 61"),
        ({"k": 0}, "got 0"),
        ({"options": {"cost": "euclidean"}}, "`cost` must be 'cosine' for transport of single samples"),
        ({"options": {"source_weights": "counts"}}, "`source_weights` must be 'ones'"),
        ({"target": make_groups(2, 5)}, "must have one width, got 8 and 5 features"),
    ],
)
def test_what_makes_no_sense_is_refused(given, text):
    features, target = problem()
    with pytest.raises(ValueError, match=text):
        select_samples(Pool.of(features), **{"target": target, "k": 5, **given})
