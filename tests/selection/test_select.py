"""What the record says about a selection, and what is refused."""

import numpy as np
import pytest
import torch

from hf_zoosel.selection import STRATEGIES, Groups, select_groups
from hf_zoosel.selection.nearness import neighbour_distances
from tests.selection.conftest import make_groups, planted

PLAIN = {"k": 5}


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ({"k": 0}, ValueError, "`k` must be from 1 to the 20 groups of the source, got 0"),
        ({"k": 21}, ValueError, "`k` must be from 1 to the 20 groups of the source, got 21"),
        ({"k": None}, ValueError, "number of source groups that 'uot' shall choose, got None"),
        ({"k": 2.0}, TypeError, "`k` must be an int, got 2.0"),
        ({"k": True}, TypeError, "`k` must be an int, got True"),
        ({"method": "all"}, ValueError, "`k` must be None for 'all', which takes the whole source, got 5"),
        ({"method": "sinkhorn"}, ValueError, r"`method` must be one of \['uot'"),
        ({"options": {"regg": 1.0}}, ValueError, r"must be some of \['cost', .*\], got 'regg'. Did you mean 'reg'\?"),
        ({"method": "random", "options": {"reg": 1.0}}, ValueError, r"of 'random' must be some of \[\], got 'reg'"),
        ({"options": {"cost": "cosin"}}, ValueError, r"`cost` must be one of \['cosine', 'euclidean'"),
        ({"options": {"scale": 0.0}}, ValueError, "`scale` must be finite and above 0, got 0.0"),
        ({"options": {"reg": float("nan")}}, ValueError, "`reg` must be finite and above 0, got nan"),
        ({"options": {"reg": "1"}}, TypeError, "`reg` must be of type float, got '1'"),
        ({"options": {"max_iterations": 1.5}}, TypeError, "`max_iterations` must be of type int, got 1.5"),
        ({"options": {"center": 1}}, TypeError, "`center` must be of type bool, got 1"),
        ({"options": {"target_weights": "one"}}, ValueError, r"`target_weights` must be one of \['ones'"),
    ],
)
def test_what_makes_no_sense_is_refused(change, kind, text):
    with pytest.raises(kind, match=text):
        select_groups(make_groups(20), make_groups(4, seed=1), **(PLAIN | change))


def test_features_of_two_layers_are_refused():
    with pytest.raises(
        ValueError, match=r"one width, got 16 and 8 features\. Take both from one checkpoint and layer"
    ):
        select_groups(make_groups(20), make_groups(4, d=8), k=5)


@pytest.mark.parametrize("method", STRATEGIES)
def test_every_record_is_consistent(method):
    source, target = make_groups(20), make_groups(4, seed=1, prefix="t")
    k = None if method == "all" else 5
    found = select_groups(source, target, k=k, method=method)
    assert len(found) == len(found.classes) == (k or 20)
    assert sorted(c.index for c in found.ranked) == list(range(20))
    assert [source.names[c.index] for c in found.ranked] == [c.name for c in found.ranked]
    assert [c.mass for c in found.ranked] == [found.mass[c.index] for c in found.ranked]
    assert sum(c.share for c in found.ranked) == pytest.approx(1)
    assert set(found.options) == set(vars(STRATEGIES[method].options()))
    picked = {c.name for c in found.classes}
    for t in found.coverage:
        assert t.nearest in picked
        assert {server.name for server in t.served_by} <= picked
        assert 0 <= t.least_distance <= t.distance <= 2
        assert 0 <= t.quantile <= 1
        if t.share_well is not None:
            assert 0 <= t.share_well + t.share_badly <= 1 + 1e-12
    assert set(found.versions) == {"hf-zoosel", "torch", "POT"}


def test_the_effective_number_counts_equal_masses_and_one_mass():
    source, target = make_groups(20), make_groups(4, seed=1)
    assert select_groups(source, target, method="all").n_effective == pytest.approx(20)
    assert select_groups(source, target, k=5, method="nearest").n_effective == pytest.approx(5)
    alone = select_groups(*planted(m=1, noise=0)[:2], k=1, method="semi_relaxed", options={"scale": 0.01})
    assert alone.n_effective == pytest.approx(1)


def test_the_effective_number_is_the_inverse_simpson_index():
    found = select_groups(make_groups(20), make_groups(4, seed=1), k=5)
    shares = np.array([c.share for c in found.ranked])
    assert found.n_effective == pytest.approx(1 / (shares**2).sum(), rel=1e-12)


def test_shares_say_from_where_a_target_class_is_served():
    source, target, at = planted(m=3, noise=0)
    found = select_groups(source, target, k=3, options={"scale": 0.02})
    assert found.near_limit == pytest.approx(1)  # orthogonal classes: all are 1 apart
    for one, i in zip(found.coverage, at, strict=True):
        assert one.nearest == one.served_by[0].name == source.names[i]
        assert one.distance == pytest.approx(0, abs=1e-12)
        assert one.quantile == 0
        assert one.share_well + one.share_badly == pytest.approx(1, abs=1e-6)
    left_out = select_groups(source, target, k=1, options={"scale": 0.02})
    assert sorted(round(t.share_well, 6) for t in left_out.coverage) == [0, 0, 1]


def test_neighbour_distances_are_those_of_a_double_loop():
    means = make_groups(30).means.numpy()
    units = means / np.linalg.norm(means, axis=1, keepdims=True)
    wanted = [min(1 - units[i] @ units[j] for j in range(30) if j != i) for i in range(30)]
    np.testing.assert_allclose(neighbour_distances(torch.from_numpy(means)), sorted(wanted), rtol=1e-9)
    np.testing.assert_allclose(neighbour_distances(torch.from_numpy(means).float()), sorted(wanted), atol=1e-6)
    many = neighbour_distances(make_groups(1000).means)
    assert len(many) == 256
    assert many.min() > 0


@pytest.mark.parametrize("method", STRATEGIES)
def test_nothing_near_the_target_is_warned_of(method):
    source = make_groups(40)
    target = make_groups(6, means=-make_groups(6, seed=1).means.numpy(), prefix="t")
    with pytest.warns(UserWarning, match=r"6 of 6 target classes are further .* Mixing may hurt"):
        found = select_groups(source, target, k=None if method == "all" else 5, method=method)
    assert found.notes[0].startswith("Nothing in the source is near the target")
    assert len(found.badly_served) == 6
    assert found.badly_served[0].distance == max(t.distance for t in found.coverage)


def test_classes_that_might_as_well_be_of_the_source_raise_no_warning():
    rng = np.random.default_rng(0)
    far = 0
    for seed in range(20):
        everything = make_groups(120, seed=seed)
        at = rng.permutation(120).tolist()
        found = select_groups(everything.take(at[:100]), everything.take(at[100:]), k=10)
        far += sum(t.least_distance > found.near_limit for t in found.coverage)
    assert 0.02 < far / 400 < 0.1  # 5 % by exchangeability


def test_a_source_of_one_class_has_no_neighbours_to_compare_with():
    found = select_groups(make_groups(1), make_groups(3, seed=1), k=1)
    assert found.near_limit is None
    assert found.badly_served == ()
    assert [(t.quantile, t.share_well) for t in found.coverage] == [(None, None)] * 3


def test_a_target_that_is_the_source_is_noted():
    source = make_groups(20)
    found = select_groups(source, source, k=5)
    assert found.notes == (
        "Every target class coincides with a source class: target and source look like the same data.",
    )
    assert "the same data" in select_groups(source, source.take([3, 5]), k=5, method="random").notes[0]


def test_classes_in_both_are_counted():
    source, other = make_groups(20), make_groups(4, seed=1)
    mixed = Groups(torch.cat([source.means[:2], other.means]), torch.ones(6, dtype=torch.int64), tuple("abcdef"))
    assert select_groups(source, mixed, k=5).notes == (
        "2 of 6 target classes coincide with a source class: some data are in both.",
    )


def test_few_effective_classes_are_noted():
    found = select_groups(make_groups(40), make_groups(3, seed=1), k=30, options={"scale": 0.001})
    assert any("source classes in effect, of 30" in note for note in found.notes)


def test_a_target_class_that_the_plan_gives_nothing_is_counted():
    source, target, _ = planted(m=3, noise=0)
    far = Groups(
        torch.cat([target.means, -target.means.sum(dim=0)[None]]), torch.ones(4, dtype=torch.int64), tuple("abcd")
    )
    found = select_groups(source, far, k=3, options={"scale": 1e-4, "reg_target": 1e-2})
    assert found.coverage[3].served_by == ()
    assert found.coverage[3].share_well == found.coverage[3].share_badly == 0
    assert "1 of 4 target classes receive nothing from the chosen classes. Choose more." in found.notes


def test_a_solver_that_stops_early_is_noted():
    with pytest.warns(UserWarning, match="did not converge"):
        found = select_groups(
            make_groups(20), make_groups(4, seed=1), k=5, options={"max_iterations": 1, "tolerance": 1e-12}
        )
    assert found.details["converged"] is False
    assert any("did not converge" in note for note in found.notes)


def test_a_single_target_class_and_a_single_feature_work():
    for method in STRATEGIES:
        k = None if method == "all" else 2
        assert len(select_groups(make_groups(5), make_groups(1, seed=1), k=k, method=method)) == (k or 5)
        found = select_groups(make_groups(5, d=1), make_groups(2, d=1, seed=1), k=k, method=method)
        assert found.coverage[0].distance == pytest.approx(0, abs=1e-12)


def test_inputs_are_left_as_they_are():
    source, target = make_groups(20), make_groups(4, seed=1)
    before = source.means.clone(), target.means.clone()
    for method in STRATEGIES:
        select_groups(source, target, k=None if method == "all" else 5, method=method)
    assert torch.equal(source.means, before[0])
    assert torch.equal(target.means, before[1])
