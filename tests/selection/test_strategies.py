"""Known answers, independent transcriptions and invariances of every strategy."""

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings, strategies as st

from hf_zoosel.selection import STRATEGIES, Groups, get_strategy, select_groups
from tests.selection.conftest import make_groups, planted

CHOOSING = [name for name, strategy in STRATEGIES.items() if strategy.needs_k]
AWARE = [name for name in CHOOSING if name != "random"]  # they look at the target
PLANNED = ["uot", "semi_relaxed", "capacity"]
SHARP = {"uot": {"scale": 0.01}, "semi_relaxed": {"scale": 0.01}}


def chosen(selection):
    return [c.name for c in selection.classes]


def without_index(selection):
    return [(c.name, c.mass, c.share, c.count, c.nearest, c.distance) for c in selection.ranked]


def unit_cost(source, target):
    """1 - cos, written out."""
    s, t = source.means.double().numpy(), target.means.double().numpy()
    cost = np.empty((len(s), len(t)))
    for i in range(len(s)):
        for j in range(len(t)):
            cost[i, j] = 1 - s[i] @ t[j] / np.sqrt((s[i] @ s[i]) * (t[j] @ t[j]))
    return cost


def uot_as_written(cost, *, reg=1.0, reg_source=1.0, reg_target=100.0):
    """Row sums of the plan of METHODS B2: generalised Sinkhorn from ones, marginals of ones."""
    kernel = np.exp(-cost / reg)
    u, v = np.ones(len(kernel)), np.ones(kernel.shape[1])
    for _ in range(5000):
        u = (1 / (kernel @ v)) ** (reg_source / (reg_source + reg))
        v = (1 / (kernel.T @ u)) ** (reg_target / (reg_target + reg))
    return (u[:, None] * kernel * v).sum(axis=1)


def test_uot_is_the_authors_problem():
    source, target = make_groups(25), make_groups(6, seed=1)
    found = select_groups(source, target, k=5, options={"tolerance": 1e-13})
    np.testing.assert_allclose(found.mass, uot_as_written(unit_cost(source, target) / 0.1), rtol=1e-9)
    options = {"tolerance": 1e-13, "scale": 0.3, "reg": 0.5, "reg_source": 2.0, "reg_target": 7.0}
    found = select_groups(source, target, k=5, options=options)
    wanted = uot_as_written(unit_cost(source, target) / 0.3, reg=0.5, reg_source=2.0, reg_target=7.0)
    np.testing.assert_allclose(found.mass, wanted, rtol=1e-9)


def test_semi_relaxed_is_a_softmax_over_the_source_per_target_class():
    source, target = make_groups(25), make_groups(6, seed=1)
    cost = unit_cost(source, target)
    wanted = np.zeros(25)
    for j in range(6):
        weights = np.exp(-cost[:, j] / 0.1)
        wanted += target.counts[j].item() / target.counts.sum().item() * weights / weights.sum()
    found = select_groups(source, target, k=5, method="semi_relaxed", options={"target_weights": "counts"})
    np.testing.assert_allclose(found.mass, wanted, rtol=1e-12)


def test_capacity_is_the_linear_program():
    source, target = make_groups(12), make_groups(5, seed=1)
    cost, k = unit_cost(source, target), 4
    plan = ot.emd(np.full(12, 1 / k), np.append(np.full(5, 1 / 5), 12 / k - 1), np.column_stack([cost, np.zeros(12)]))
    found = select_groups(source, target, k=k, method="capacity")
    assert found.transport_cost == pytest.approx((plan[:, :5] * cost).sum(), rel=1e-9)
    assert max(found.mass) <= 1 / k + 1e-12
    assert sum(found.mass) == pytest.approx(1, rel=1e-12)


def test_mean_distance_is_the_distance_of_a_single_class_to_the_target():
    source, target = make_groups(12), make_groups(5, seed=1)
    weights = (target.counts.double() / target.counts.sum()).numpy()
    costs = ot.dist(source.means.numpy(), target.means.numpy(), metric="euclidean")
    alone = [ot.emd2(np.ones(1), weights, costs[[i]]) for i in range(12)]
    found = select_groups(source, target, k=3, method="mean_distance")
    assert chosen(found) == [source.names[i] for i in np.argsort(alone)[:3]]


def test_nearest_takes_the_classes_nearest_to_any_target_class():
    source, target = make_groups(12), make_groups(5, seed=1)
    order = unit_cost(source, target).min(axis=1).argsort()
    found = select_groups(source, target, k=4, method="nearest")
    assert [c.index for c in found.classes] == order[:4].tolist()


@pytest.mark.parametrize("method", AWARE)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10)
def test_planted_classes_are_found(method, seed):
    source, target, at = planted(seed=seed)
    found = select_groups(source, target, k=len(at), method=method)
    assert {c.index for c in found.classes} == set(at)
    assert [source.names.index(t.nearest) for t in found.coverage] == at


@pytest.mark.parametrize("method", [*CHOOSING, "all"])
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=15)
def test_the_order_of_classes_changes_nothing(method, seed):
    rng = np.random.default_rng(seed)
    source, target = make_groups(20, seed=seed), make_groups(6, seed=seed + 1, prefix="t")
    source = Groups(source.means, source.counts, ("twin", "twin", *source.names[2:]))
    means = source.means.clone()
    means[3] = means[2]  # two classes alike: their names decide
    source = Groups(means, source.counts, source.names)
    k = None if method == "all" else 7
    one = select_groups(source, target, k=k, method=method, seed=3)
    for_source, for_target = rng.permutation(20).tolist(), rng.permutation(6).tolist()
    other = select_groups(source.take(for_source), target.take(for_target), k=k, method=method, seed=3)
    assert without_index(other) == without_index(one)
    assert [for_source[c.index] for c in other.ranked] == [c.index for c in one.ranked]
    assert sorted(t.name + t.nearest for t in other.coverage) == sorted(t.name + t.nearest for t in one.coverage)
    assert other.n_effective == one.n_effective
    assert [t.index for t in other.coverage] == list(range(6))


@pytest.mark.parametrize("method", ["uot", "semi_relaxed", "capacity", "nearest"])
def test_the_length_of_a_mean_does_not_matter_to_the_cosine(method):
    source, target = make_groups(20), make_groups(6, seed=1)
    lengths = torch.from_numpy(10.0 ** np.random.default_rng(2).uniform(-4, 4, size=(20, 1)))
    longer = Groups(source.means * lengths, source.counts, source.names)
    one, other = (select_groups(s, target, k=7, method=method) for s in (source, longer))
    assert chosen(one) == chosen(other)
    np.testing.assert_allclose(other.mass, one.mass, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", PLANNED)
def test_a_far_cluster_gets_no_mass(method):
    source, target = make_groups(20), make_groups(6, seed=1)
    means = source.means.clone()
    means[10:] *= -1
    found = select_groups(
        Groups(means, source.counts, source.names), target, k=6, method=method, options=SHARP.get(method)
    )
    assert max(found.mass[10:]) <= 1e-12 * max(found.mass)


@pytest.mark.parametrize("method", PLANNED)
def test_a_class_given_twice_shares_its_mass_alike(method):
    source, target = make_groups(20), make_groups(6, seed=1)
    twice = Groups(source.means[[0, *range(20)]], source.counts[[0, *range(20)]], ("again", *source.names))
    found = select_groups(twice, target, k=6, method=method)
    assert found.mass[0] == pytest.approx(found.mass[1], rel=1e-9, abs=1e-15)


def test_small_masses_keep_their_order():
    source, target = make_groups(20), make_groups(6, seed=1)
    found = select_groups(source, target, k=20, method="semi_relaxed", options={"scale": 0.002})
    masses = [c.mass for c in found.ranked]
    assert masses[-1] < 1e-25
    assert masses == sorted(masses, reverse=True)


@pytest.mark.filterwarnings("ignore:Nothing in the source")  # a single class is far by chance, 1 time in 20
@given(seed=st.integers(0, 2**32 - 1), m=st.integers(1, 9), more=st.integers(0, 6))
@settings(max_examples=25)
def test_capacity_covers_every_target_class_if_as_many_classes_are_chosen(seed, m, more):
    found = select_groups(make_groups(15, seed=seed), make_groups(m, seed=seed + 1), k=m + more, method="capacity")
    assert all(t.served_by for t in found.coverage)
    assert not any("receive nothing" in note for note in found.notes)


def test_capacity_says_which_target_classes_too_few_classes_leave_out():
    source, target, _ = planted(m=8, noise=0)
    found = select_groups(source, target, k=3, method="capacity")
    out = [t for t in found.coverage if not t.served_by]
    assert f"{len(out)} of 8 target classes receive nothing from the chosen classes. Choose more." in found.notes


@pytest.mark.parametrize("method", ["uot", "semi_relaxed", "capacity", "nearest"])
def test_centring_takes_out_what_all_features_have_in_common(method):
    source, target = make_groups(20), make_groups(6, seed=1)
    common = 50.0
    moved = [Groups(g.means + common, g.counts, g.names) for g in (source, target)]
    one = select_groups(source, target, k=7, method=method, options={"center": True})
    other = select_groups(*moved, k=7, method=method, options={"center": True})
    assert chosen(one) == chosen(other)
    np.testing.assert_allclose([c.distance for c in one.ranked], [c.distance for c in other.ranked], rtol=1e-6)


@pytest.mark.parametrize("cost", ["cosine", "euclidean", "normalized_euclidean"])
def test_every_ground_cost_is_the_distance_it_says(cost):
    source, target = make_groups(8), make_groups(3, seed=1)
    s, t = source.means.numpy(), target.means.numpy()
    if cost != "euclidean":
        s, t = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (s, t))
    wanted = ((s[:, None] - t) ** 2).sum(axis=2) / 2 if cost == "cosine" else np.linalg.norm(s[:, None] - t, axis=2)
    strategy = get_strategy("nearest")
    found = strategy.fn(source, target, k=1, options=strategy.options(cost=cost), seed=0)
    np.testing.assert_allclose(found.cost, wanted, rtol=1e-9)


def test_the_seed_draws_at_random_and_nothing_else():
    source, target = make_groups(30), make_groups(4, seed=1)
    draws = {tuple(chosen(select_groups(source, target, k=5, method="random", seed=seed))) for seed in range(8)}
    assert len(draws) == 8
    for method in AWARE:
        one, other = (select_groups(source, target, k=5, method=method, seed=seed) for seed in (0, 1))
        assert one.ranked == other.ranked


def test_a_misspelt_method_lists_the_choices():
    with pytest.raises(ValueError, match=r"one of \['uot', .*'all'\], got 'ot'. Did you mean 'uot'"):
        get_strategy("ot")
