import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from hf_zoosel.metrics import _blocks, lfc
from hf_zoosel.metrics.lfc import lfc_influence
from tests.metrics.transcriptions.lfc import lfc_as_written

OPTIONS = [{"centered": centered, "cosine": cosine} for centered in (False, True) for cosine in (False, True)]


@st.composite
def problems(draw):
    n, d, k = draw(st.integers(4, 14)), draw(st.integers(1, 20)), draw(st.integers(2, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    offset = draw(st.sampled_from([0.0, 1.0, 10.0]))
    features = offset + torch.randn(n, d, dtype=torch.float64, generator=generator)
    labels = torch.randint(k, (n,), generator=generator)
    labels[:k] = torch.arange(k)  # every class appears
    return features, labels


@given(problems())
def test_equals_the_formula_of_the_paper(problem):
    assert lfc(*problem) == pytest.approx(lfc_as_written(*problem), rel=1e-10, abs=1e-12)


@given(problems())
def test_lies_between_minus_one_and_one(problem):
    features, labels = problem
    for options in OPTIONS:
        if features.shape[1] > 1:  # one column may have one direction only
            assert abs(lfc(features, labels, **options)) <= 1
    assert abs(lfc(torch.nn.functional.one_hot(labels).double(), labels)) <= 1


def test_stays_a_correlation_where_copies_with_the_spectral_norm_exceed_one():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 12
    features = torch.randn(60, 200, generator=generator) + torch.randn(12, 200, generator=generator)[labels]
    assert lfc_as_written(features, labels, order=2) > 1  # the fault of the copies on the web
    assert lfc(features, labels) == pytest.approx(lfc_as_written(features, labels), rel=1e-10)
    assert lfc(features, labels) < 1


def test_forms_no_n_by_n_kernel_where_d_is_smaller():
    labels = torch.arange(100_000) % 3  # 80 GB in float64
    features = torch.randn(100_000, 3, generator=torch.Generator().manual_seed(0))
    for options in OPTIONS:
        assert abs(lfc_influence(features, labels, **options)[0]) < 0.01


@pytest.mark.parametrize("scale", [1.0, 0.1, 1e4, 1e-8])
def test_is_one_where_the_kernel_is_the_label_kernel(scale):
    sign = torch.tensor([[1.0], [1.0], [-1.0], [-1.0], [-1.0]])
    assert lfc(scale * sign, sign.flatten().long()) == pytest.approx(1, rel=1e-15)


@given(problems(), st.sampled_from([1e-20, 1e-4, 1e4, 1e20]))
def test_ignores_the_scale_of_the_features(problem, scale):
    features, labels = problem
    assert lfc(scale * features, labels) == pytest.approx(lfc(features, labels), rel=1e-10, abs=1e-13)


@pytest.mark.parametrize("shape", [(400, 20), (60, 300)])
def test_sums_in_float64_where_float32_means_would_swap_models(shape):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(shape[0]) % 4
    features = (
        300 + torch.randn(shape, generator=generator) + 0.3 * torch.randn(4, shape[1], generator=generator)[labels]
    )
    exact = lfc_as_written(features, labels, dtype=np.longdouble)
    assert lfc(features, labels) == pytest.approx(exact, rel=1e-10)
    assert lfc_as_written(features, labels, dtype=np.float32) != pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize("shape", [(8, 3), (3, 8)])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e7])
def test_refuses_constant_features(shape, value):
    features = torch.full(shape, value, dtype=torch.float64)
    with pytest.raises(ValueError, match="same row for all"):
        lfc(features, torch.arange(shape[0]) % 2)


@settings(max_examples=25)
@given(problems())
def test_influence_is_the_derivative_in_the_weight_of_a_sample(problem):
    features, labels = problem
    score, influence = lfc_influence(features, labels)
    assert score == pytest.approx(lfc(features, labels), rel=1e-12, abs=1e-14)
    assert influence.sum().item() == pytest.approx(0, abs=1e-8)
    for i, step in [(0, 1e-5), (len(labels) - 1, 1e-5)]:
        up, down = np.ones(len(labels)), np.ones(len(labels))
        up[i], down[i] = 1 + step, 1 - step
        slope = (lfc_as_written(features, labels, up) - lfc_as_written(features, labels, down)) / (2 * step)
        assert influence[i].item() == pytest.approx(len(labels) * slope, rel=1e-4, abs=1e-6)


wide_problems = problems().filter(lambda problem: problem[0].shape[1] > 1)  # one column may have one direction only


@given(wide_problems, st.sampled_from(OPTIONS))
def test_options_change_the_features_before_the_formula_of_the_paper(problem, options):
    assert lfc(*problem, **options) == pytest.approx(lfc_as_written(*problem, **options), rel=1e-9, abs=1e-11)


@settings(max_examples=25)
@given(wide_problems, st.sampled_from(OPTIONS[1:]))
def test_influence_with_options_holds_the_kernel(problem, options):
    features, labels = problem
    score, influence = lfc_influence(features, labels, **options)
    assert score == pytest.approx(lfc(features, labels, **options), rel=1e-12, abs=1e-14)
    assert influence.sum().item() == pytest.approx(0, abs=1e-8)
    up, down = np.ones(len(labels)), np.ones(len(labels))
    up[0], down[0] = 1 + 1e-5, 1 - 1e-5
    difference = lfc_as_written(*problem, up, **options) - lfc_as_written(*problem, down, **options)
    assert influence[0].item() == pytest.approx(len(labels) * difference / 2e-5, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("shape", [(40, 12), (20, 90)])
@pytest.mark.parametrize("options", OPTIONS)
def test_options_leave_the_input_and_its_blocks_alone(monkeypatch, shape, options):
    features = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before, labels = features.clone(), torch.arange(shape[0]) % 4
    score, influence = lfc_influence(features, labels, **options)
    monkeypatch.setattr(_blocks, "_BLOCK_ELEMENTS", 1)
    monkeypatch.setattr(_blocks, "_MIN_ROWS", 7)
    in_blocks, influence_in_blocks = lfc_influence(features, labels, **options)
    assert in_blocks == pytest.approx(score, rel=1e-11)
    assert influence_in_blocks.numpy() == pytest.approx(influence.numpy(), rel=1e-7, abs=1e-9)
    assert torch.equal(features, before)


def test_centring_uncovers_classes_under_a_large_common_mean():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 4
    features = torch.randn(200, 30, generator=generator) + torch.randn(4, 30, generator=generator)[labels] + 20
    assert lfc(features, labels) < 0.2
    assert lfc(features, labels, centered=True) > 0.5


@settings(max_examples=30)
@given(problems())
def test_centred_is_cka_with_the_labels_up_to_the_sizes_of_the_classes(problem):
    features, labels = problem

    def cka(of):  # Kornblith et al. 2019, arXiv:1905.00414: both kernels centred twice
        centre = np.eye(len(labels)) - 1 / len(labels)
        one = centre @ (of @ of.T).numpy() @ centre
        two = centre @ np.equal.outer(labels.numpy(), labels.numpy()) @ centre
        return (one * two).sum() / np.linalg.norm(one) / np.linalg.norm(two)

    other = features.square()
    left = lfc(features, labels, centered=True) * cka(other)
    assert left == pytest.approx(lfc(other, labels, centered=True) * cka(features), rel=1e-8, abs=1e-10)
    if len(set(labels.bincount().tolist())) == 1:
        assert lfc(features, labels, centered=True) == pytest.approx(cka(features), rel=1e-9)


def test_centred_is_cka_where_classes_are_of_equal_size():
    one_hot, labels = torch.eye(5).repeat(3, 1), torch.arange(15) % 5
    assert lfc(one_hot, labels, centered=True) == pytest.approx(1, rel=1e-12)


def test_cosine_ignores_the_length_of_rows():
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(30, 8, dtype=torch.float64, generator=generator), torch.arange(30) % 3
    lengths = torch.logspace(-9, 9, 30, dtype=torch.float64)
    longer = features * lengths[:, None]
    assert lfc(longer, labels, cosine=True) == pytest.approx(lfc(features, labels, cosine=True), rel=1e-12)
    assert lfc(longer, labels) != pytest.approx(lfc(features, labels), rel=1e-2)


def test_a_row_without_direction_stays_zero():
    labels = torch.tensor([0, 0, 1, 1, 1])
    features = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 0.0], [0.0, 2.0], [0.0, 5.0]])
    unit = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert lfc(features, labels, cosine=True) == pytest.approx(lfc(unit, labels), rel=1e-12)


def test_a_row_at_the_mean_up_to_rounding_stays_zero():
    labels, direction = torch.tensor([0, 1, 1]), torch.tensor([0.1, 0.2, 0.7], dtype=torch.float64)
    features = torch.outer(torch.tensor([1.1, 1.2, 1.3], dtype=torch.float64), direction)  # the second is the mean
    line = torch.tensor([[-1.0], [0.0], [1.0]])
    assert lfc(features, labels, centered=True, cosine=True) == pytest.approx(lfc(line, labels), rel=1e-9)


def test_cosine_refuses_rows_of_one_direction():
    features = torch.outer(torch.tensor([1.0, 3.0, 7.0, 0.1], dtype=torch.float64), torch.rand(9).double())
    with pytest.raises(ValueError, match="same direction for all"):
        lfc(features, torch.tensor([0, 0, 1, 1]), cosine=True)
