import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from hf_zoosel.metrics.transrate import transrate, transrate_influence
from tests.metrics.transcriptions.transrate import transrate_as_written, transrate_with_classes_of_equal_weight


@st.composite
def problems(draw):
    n, d, k = draw(st.integers(4, 25)), draw(st.integers(1, 30)), draw(st.integers(2, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    labels = torch.randint(k, (n,), generator=generator)
    labels[:k] = torch.arange(k)  # every class appears, some once
    signal, offset = draw(st.sampled_from([0.0, 0.5, 3.0])), draw(st.sampled_from([0.0, 10.0]))
    classes = signal * torch.randn(k, d, generator=generator, dtype=torch.float64)
    return offset + classes[labels] + torch.randn(n, d, generator=generator, dtype=torch.float64), labels


def problem(n, d, k, signal=0.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % k
    classes = signal * torch.randn(k, d, generator=generator, dtype=torch.float64)
    return classes[labels] + torch.randn(n, d, generator=generator, dtype=torch.float64), labels


@settings(max_examples=20)
@given(problems(), st.sampled_from([1e-4, 1e-2, 1.0]), st.booleans())
def test_equals_the_formula_of_the_paper(case, eps, unit_trace):
    expected = transrate_as_written(*case, eps, unit_trace)
    assert transrate(*case, eps=eps, unit_trace=unit_trace) == pytest.approx(expected, rel=1e-9, abs=1e-10)


@pytest.mark.parametrize(("n", "d"), [(60, 7), (60, 40), (30, 30), (20, 80)])
def test_equals_the_published_code_for_classes_of_one_size(n, d):
    features, labels = problem(n, d, k=5)
    expected = transrate_with_classes_of_equal_weight(features, labels)
    assert transrate(features, labels, unit_trace=False) == pytest.approx(expected, rel=1e-10)


def test_class_rates_are_weighted_by_class_size_not_equally():
    features, labels = problem(60, 10, k=2)
    labels = (torch.arange(60) < 4).long()
    ours = transrate(features, labels, unit_trace=False)
    assert ours == pytest.approx(transrate_as_written(features, labels, unit_trace=False), rel=1e-10)
    assert abs(transrate_with_classes_of_equal_weight(features, labels) - ours) > 1


@settings(max_examples=20)
@given(problems(), st.sampled_from([1e-20, 1e-4, 1e4, 1e20]))
def test_ignores_the_scale_of_the_features_where_the_published_code_does_not(case, scale):
    features, labels = case
    assert transrate(scale * features, labels) == pytest.approx(transrate(features, labels), rel=1e-9, abs=1e-10)


def test_the_unnormalised_form_grows_with_the_scale_of_the_features():
    features, labels = problem(40, 10, k=4)
    assert transrate(10 * features, labels, unit_trace=False) > transrate(features, labels, unit_trace=False)


@settings(max_examples=20)
@given(problems())
def test_is_never_negative_as_the_rate_is_concave(case):
    assert transrate(*case) >= 0
    assert transrate_as_written(*case) >= -1e-10


@settings(max_examples=20)
@given(problems())
def test_ignores_rotations_and_a_common_shift(case):
    features, labels = case
    d = features.shape[1]
    rotation = torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
    assert transrate(features @ rotation + 7, labels) == pytest.approx(transrate(features, labels), rel=1e-8, abs=1e-9)


def test_features_padded_with_zeros_score_the_same():
    features, labels = problem(40, 12, k=4)
    padded = torch.cat([features, torch.zeros(40, 60)], dim=1)
    assert transrate(padded, labels) == pytest.approx(transrate(features, labels), rel=1e-10)


def test_two_points_have_the_value_computed_by_hand():
    """Z = +-1/2 scaled to +-1: R(Z) = R(Z_c) = 1/2 ln(1 + 1 / eps), so nothing is gained by the labels."""
    assert transrate(torch.tensor([[0.0], [1.0]]), torch.tensor([0, 1])) == 0
    corners = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    expected = math.log(1 + 0.5 / 1e-4) - 0.5 * math.log(1 + 1 / 1e-4)
    assert transrate(corners, torch.tensor([0, 0, 1, 1])) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("shape", [(12, 3), (6, 40)])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e7])
@pytest.mark.parametrize("unit_trace", [True, False])
def test_constant_features_score_zero(shape, value, unit_trace):
    features = torch.full(shape, value, dtype=torch.float64)
    score, influence = transrate_influence(features, torch.arange(shape[0]) % 2, unit_trace=unit_trace)
    assert score == transrate(features, torch.arange(shape[0]) % 2, unit_trace=unit_trace) == 0
    assert not influence.any()


@pytest.mark.parametrize(
    ("eps", "unit_trace"), [(0.0, True), (-1.0, True), (1e-12, True), (math.nan, True), (1e-4, False)]
)
def test_a_precision_beyond_rounding_is_refused(eps, unit_trace):
    features, labels = problem(10, 3, k=2)
    with pytest.raises(ValueError, match=r"`eps` must be at least .* Use the default 1e-4 with unit_trace=True"):
        transrate(1e6 * features, labels, eps=eps, unit_trace=unit_trace)


@pytest.mark.parametrize(("n", "d", "k"), [(40, 6, 3), (40, 20, 2), (20, 50, 3)])
@pytest.mark.parametrize("unit_trace", [True, False])
def test_influence_is_the_derivative_in_the_weight_of_a_sample(n, d, k, unit_trace):
    features, labels = problem(n, d, k)
    score, influence = transrate_influence(features, labels, unit_trace=unit_trace)
    assert score == pytest.approx(transrate(features, labels, unit_trace=unit_trace), rel=1e-12)
    moved = torch.zeros(n, dtype=torch.float64)
    moved[1], moved[1 + k], moved[1 + 2 * k] = 1, -0.4, -0.6  # one class: its total is kept

    def at(step):
        return transrate_as_written(features, labels, unit_trace=unit_trace, weights=(1 + step * moved).numpy())

    slope = (at(1e-4) - at(-1e-4)) / 2e-4
    assert (moved * influence).mean().item() == pytest.approx(slope, rel=1e-5, abs=1e-7)


@settings(max_examples=25)
@given(problems())
def test_influence_sums_to_zero_for_a_unit_trace(case):
    influence = transrate_influence(*case)[1]
    assert influence.sum().item() == pytest.approx(0, abs=1e-7 * (1 + influence.abs().sum().item()))
