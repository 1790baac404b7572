import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from hf_zoosel.metrics.gbc import gbc, gbc_influence
from tests.metrics.transcriptions.gbc import gbc_as_written

COVARIANCES = ["spherical", "diagonal"]


@st.composite
def problems(draw):
    n, d, k = draw(st.integers(4, 25)), draw(st.integers(1, 30)), draw(st.integers(2, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    labels = torch.randint(k, (n,), generator=generator)
    labels[:k] = torch.arange(k)  # every class appears, some once
    signal, offset = draw(st.sampled_from([0.0, 0.3, 1.0])), draw(st.sampled_from([0.0, 10.0]))
    classes = signal * torch.randn(k, d, generator=generator, dtype=torch.float64)
    return offset + classes[labels] + torch.randn(n, d, generator=generator, dtype=torch.float64), labels


def problem(n, d, k, signal=0.3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % k
    classes = signal * torch.randn(k, d, generator=generator, dtype=torch.float64)
    return classes[labels] + torch.randn(n, d, generator=generator, dtype=torch.float64), labels


@settings(max_examples=20)
@given(problems(), st.sampled_from(COVARIANCES), st.sampled_from([2, 5, 64]))
def test_equals_the_formula_of_the_paper(case, covariance, n_components):
    expected = gbc_as_written(*case, covariance, n_components)
    ours = gbc(*case, covariance=covariance, n_components=n_components)
    assert ours == pytest.approx(expected, rel=1e-9, abs=1e-13)


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize(("n", "d"), [(300, 90), (90, 300)])
def test_equals_the_formula_at_the_papers_64_components(covariance, n, d):
    features, labels = problem(n, d, k=6, signal=0.05)
    expected = gbc_as_written(features, labels, covariance)
    assert gbc(features, labels, covariance=covariance) == pytest.approx(expected, rel=1e-9)


def gbc_by_the_authors_code(points, labels, floor=1e-4):
    """google-research/stable_transfer/transferability/gbc.py with ``diagonal``: floor in units of the features."""
    p, y, total = points.numpy(), labels.numpy(), 0.0
    stats = {c: (p[y == c].mean(axis=0), np.maximum(p[y == c].var(axis=0), floor)) for c in np.unique(y)}
    for i, (m1, v1) in stats.items():
        for j, (m2, v2) in stats.items():
            if i != j:
                middle = (v1 + v2) / 2
                distance = ((m1 - m2) ** 2 / middle).sum() / 8
                total += np.exp(-distance - 0.5 * (np.log(middle) - 0.5 * np.log(v1) - 0.5 * np.log(v2)).sum())
    return -total


def test_equals_the_authors_code_for_components_of_mean_variance_one():
    features, labels = problem(80, 6, k=4)
    u, s, _ = torch.linalg.svd(features - features.mean(dim=0), full_matrices=False)
    points = u * s
    points = points / points.square().mean().sqrt()
    points[labels == 1, 2] = 0.1  # below the floor
    u, s, _ = torch.linalg.svd(points - points.mean(dim=0), full_matrices=False)
    scores = u * s / (u * s).square().mean().sqrt()
    assert gbc(points, labels, covariance="diagonal") == pytest.approx(
        gbc_by_the_authors_code(scores, labels), rel=1e-9
    )


def test_two_classes_on_a_line_have_the_value_computed_by_hand():
    features, labels = torch.tensor([[0.0], [2.0], [1.0], [7.0]]), torch.tensor([0, 0, 1, 1])
    expected = -2 * math.exp(-(9 / 5 / 8 + 0.5 * math.log(5 / math.sqrt(1 * 9))))
    for covariance in COVARIANCES:
        assert gbc(features, labels, covariance=covariance) == pytest.approx(expected, rel=1e-12)


def test_spherical_classes_count_the_logarithm_of_each_component():
    """The authors' code counts it once: two classes of one centre and other spread then overlap too much."""
    corners = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    features, labels = torch.cat([corners, 3 * corners]), torch.arange(8) // 4
    once = 0.5 * math.log(5 / math.sqrt(1 * 9))
    assert gbc(features, labels) == pytest.approx(-2 * math.exp(-2 * once), rel=1e-12)
    assert gbc(features, labels) == pytest.approx(gbc(features, labels, covariance="diagonal"), rel=1e-12)


@settings(max_examples=20)
@given(problems(), st.sampled_from(COVARIANCES))
def test_lies_between_minus_the_number_of_ordered_pairs_and_zero(case, covariance):
    k = int(case[1].max()) + 1
    assert -k * (k - 1) * (1 + 1e-12) <= gbc(*case, covariance=covariance) <= 0


@settings(max_examples=20)
@given(problems(), st.sampled_from([1e-20, 1e-4, 1e4, 1e20]), st.sampled_from(COVARIANCES))
def test_ignores_the_scale_of_the_features_in_spite_of_the_floor(case, scale, covariance):
    features, labels = case
    expected = gbc(features, labels, covariance=covariance)
    assert gbc(scale * features, labels, covariance=covariance) == pytest.approx(expected, rel=1e-8, abs=1e-12)


@settings(max_examples=20)
@given(problems(), st.sampled_from(COVARIANCES))
def test_ignores_rotations_and_a_common_shift(case, covariance):
    features, labels = case
    d = features.shape[1]
    rotation = torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
    expected = gbc(features, labels, covariance=covariance)
    assert gbc(features @ rotation + 7, labels, covariance=covariance) == pytest.approx(expected, rel=1e-6, abs=1e-10)


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("shape", [(12, 3), (6, 40)])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e7])
def test_constant_features_overlap_wholly(covariance, shape, value):
    features, labels = torch.full(shape, value, dtype=torch.float64), torch.arange(shape[0]) % 3
    score, influence = gbc_influence(features, labels, covariance=covariance)
    assert score == gbc(features, labels, covariance=covariance) == pytest.approx(-6, rel=1e-12)
    assert influence.abs().max() < 1e-12


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_classes_of_one_sample_and_far_classes_stay_finite(covariance):
    features = torch.cat([torch.eye(8), 1e6 * torch.eye(8)]).double()
    score, influence = gbc_influence(features, torch.arange(16), covariance=covariance)
    assert -16 * 15 <= score <= 0
    assert influence.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"covariance": "full"}, r"`covariance` must be one of \['spherical', 'diagonal'\], got 'full'"),
        ({"n_components": 0}, r"`n_components` must be at least 1, got 0"),
        ({"variance_floor": 0.0}, r"`variance_floor` must be positive, got 0.0"),
        ({"variance_floor": math.nan}, r"`variance_floor` must be positive, got nan"),
    ],
)
def test_options_without_a_meaning_are_refused(options, message):
    for function in (gbc, gbc_influence):
        with pytest.raises(ValueError, match=message):
            function(*problem(10, 3, 2), **options)


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize(("n", "d", "floor"), [(40, 6, 1e-4), (40, 6, 0.9), (20, 50, 1e-4)])
def test_influence_is_the_derivative_in_the_weight_of_a_sample(covariance, n, d, floor):
    features, labels = problem(n, d, k=3)
    options = {"covariance": covariance, "n_components": 5}
    score, influence = gbc_influence(features, labels, variance_floor=floor, **options)
    assert score == pytest.approx(gbc(features, labels, variance_floor=floor, **options), rel=1e-13)
    moved = torch.zeros(n, dtype=torch.float64)
    moved[1], moved[4], moved[7] = 1, -0.4, -0.6  # one class: its total is kept

    def at(step):
        return gbc_as_written(features, labels, floor=floor, weights=(1 + step * moved).numpy(), **options)

    slope = (at(1e-5) - at(-1e-5)) / 2e-5
    assert (moved * influence).mean().item() == pytest.approx(slope, rel=1e-5, abs=1e-9)


@settings(max_examples=25)
@given(problems(), st.sampled_from(COVARIANCES))
def test_influence_sums_to_zero_over_each_class(case, covariance):
    influence = gbc_influence(*case, covariance=covariance)[1]
    sums = torch.zeros(4, dtype=torch.float64).index_add_(0, case[1], influence)
    assert sums.abs().max().item() == pytest.approx(0, abs=1e-9 * (1 + influence.abs().sum().item()))
