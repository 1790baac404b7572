import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from hf_zoosel.metrics.otce import _stratified, otce, otce_influence
from tests.metrics.transcriptions.otce import otce_as_written


def problem(n, m, d, k, seed=0):
    """Target features and labels, source features and labels."""
    generator = torch.Generator().manual_seed(seed)
    labels, source_labels = (torch.randint(k, (size,), generator=generator) for size in (n, m))
    labels[:k] = source_labels[:k] = torch.arange(k)
    means = torch.randn(k, d, generator=generator, dtype=torch.float64)
    features, source = (
        means[y] + torch.randn(len(y), d, generator=generator, dtype=torch.float64) for y in (labels, source_labels)
    )
    return features, labels, source, source_labels


def entropy(labels):
    shares = labels.unique(return_counts=True)[1].double() / len(labels)
    return -(shares * shares.log()).sum().item()


@settings(max_examples=25)
@given(
    st.integers(3, 12), st.integers(3, 12), st.integers(1, 20), st.integers(2, 3), st.booleans(), st.integers(0, 999)
)
def test_equals_the_linear_programme_and_the_double_sum(n, m, d, k, weighted, seed):
    case, weight = problem(n, m, d, k, seed), 0.3 * weighted
    expected = otce_as_written(*case, distance_weight=weight)
    assert otce(*case, distance_weight=weight) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_is_negated_unlike_a_peers_copy_that_returns_distance_plus_entropy():
    """Model-Spider ranks by W + H, for which a worse match scores higher."""
    near, far = problem(30, 30, 4, 3), problem(30, 30, 4, 3)
    far[2][:] = far[2].flip(0)  # the source labels no longer tell
    assert otce(*far) < otce(*near) <= 0
    assert otce(*near, distance_weight=0.1) < otce(*near)


def test_a_task_is_its_own_perfect_source_at_no_distance():
    features, labels, _, _ = problem(25, 5, 6, 4)
    assert otce(features, labels, features, labels, distance_weight=1.0) == pytest.approx(0, abs=1e-12)


@settings(max_examples=20)
@given(st.integers(0, 999))
def test_lies_between_minus_the_label_entropy_and_zero(seed):
    case = problem(20, 14, 3, 3, seed)
    assert -entropy(case[1]) - 1e-9 <= otce(*case) <= 0


@settings(max_examples=15)
@given(st.integers(0, 999), st.integers(0, 2))
def test_ignores_order_and_class_names_of_both_sides_even_where_samples_are_drawn(seed, draw):
    features, labels, source, source_labels = problem(40, 50, 3, 3, seed)
    generator = torch.Generator().manual_seed(seed)
    i, j = torch.randperm(40, generator=generator), torch.randperm(50, generator=generator)
    score, influence = otce_influence(features, labels, source, source_labels, max_samples=25, seed=draw)
    other_score, other_influence = otce_influence(
        features[i],
        100 - 7 * labels[i],
        source[j],
        torch.tensor([5, 1, -3])[source_labels[j]],
        max_samples=25,
        seed=draw,
    )
    assert other_score == pytest.approx(score, rel=1e-9)
    assert other_influence.numpy() == pytest.approx(influence[i].numpy(), rel=1e-9, abs=1e-12)


def test_duplicates_with_two_labels_share_what_is_carried_to_them_in_any_order():
    features, source = torch.tensor([[0.0], [0.0], [5.0], [5.0]]), torch.tensor([[0.0], [0.0], [5.0], [5.0]])
    labels, source_labels = torch.tensor([0, 1, 0, 0]), torch.tensor([0, 1, 1, 1])
    scores = {
        otce(features[i], labels[i], source[j], source_labels[j])
        for i in ([0, 1, 2, 3], [3, 1, 0, 2])
        for j in (i, [1, 0, 3, 2])
    }
    p = {(0, 0): 1 / 8, (0, 1): 1 / 8, (1, 0): 5 / 8, (1, 1): 1 / 8}
    of_source = {0: 1 / 4, 1: 3 / 4}
    assert len(scores) == 1
    assert scores.pop() == pytest.approx(sum(v * math.log(v / of_source[s]) for (s, _), v in p.items()), rel=1e-12)


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_ignores_the_scale_and_shift_of_features_without_the_distance(scale):
    features, labels, source, source_labels = problem(20, 20, 4, 3)
    scaled = otce(scale * features, labels, scale * source, source_labels)
    assert scaled == pytest.approx(otce(features, labels, source, source_labels), rel=1e-9)


def test_samples_are_drawn_from_classes_in_proportion_with_at_least_one_of_each():
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0] * 600 + [1] * 300 + [2] * 99 + [3])
    taken = _stratified(torch.randn(1000, 3, generator=generator), labels, 100, 0)
    assert len(taken) == len(taken.unique()) == 100
    counts = labels[taken].bincount()
    assert (counts - torch.tensor([60, 30, 10, 1])).abs().max() <= 1
    assert counts.min() == 1


def test_few_samples_are_all_taken_whatever_the_seed():
    case = problem(20, 30, 4, 3)
    assert otce(*case, seed=0) == otce(*case, seed=1) == otce(*case, max_samples=30)


def test_the_influence_of_the_samples_taken_averages_to_the_score():
    case = problem(40, 30, 4, 3)
    score, influence = otce_influence(*case, max_samples=16, distance_weight=0.1)
    assert influence.mean().item() == pytest.approx(score, rel=1e-12)
    assert (influence != 0).sum() <= 16


def test_a_plan_without_mass_is_an_error_and_not_a_score(monkeypatch):
    """POT has solvers that return zeros with only a warning."""
    import ot

    monkeypatch.setattr(ot, "emd", lambda a, b, cost, **_: (0 * cost, {"warning": None}))
    with pytest.raises(RuntimeError, match=r"plan of mass 1.*got mass 0"):
        otce(*problem(20, 30, 4, 3))


def test_a_warning_of_the_solver_is_an_error(monkeypatch):
    from hf_zoosel.metrics import _transport

    monkeypatch.setattr(_transport, "_MAX_PIVOTS", 1)
    with pytest.raises(RuntimeError, match=r"numItermax|marginals off"):
        otce(*problem(60, 70, 4, 3))


def test_source_features_of_another_width_are_refused():
    features, labels, source, source_labels = problem(20, 20, 4, 3)
    with pytest.raises(ValueError, match=r"`source_features` must have 4 columns as `features` have, got 3"):
        otce(features, labels, source[:, :3], source_labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distance_weight": -1.0}, "`distance_weight` must be at least 0, got -1.0"),
        ({"max_samples": 1}, "`max_samples` must be at least 2"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        otce(*problem(20, 20, 4, 3), **options)


def test_two_clusters_match_as_computed_by_hand():
    """Source labels 0, 1 in equal shares; the target's halves carry labels (a, a) and (a, b)."""
    source, target = torch.tensor([[0.0], [1.0], [8.0], [9.0]]), torch.tensor([[0.0], [1.0], [8.0], [9.0]])
    score = otce(target, torch.tensor([0, 0, 0, 1]), source, torch.tensor([0, 0, 1, 1]))
    assert score == pytest.approx(-0.5 * math.log(2), rel=1e-12)
