import pytest
import torch
from hypothesis import given, strategies as st

from hf_zoosel.metrics.feature_metrics import (
    SPARSITY_WEIGHT,
    between_class_scatter,
    channel_correlation,
    feature_metrics_over_zoo,
    feature_metrics_terms,
    map_statistics,
    scatter_ratio,
    within_class_scatter,
)
from tests.metrics.transcriptions.feature_metrics import (
    c56_as_written,
    s1_as_written,
    s2_as_written,
    s3_as_written,
    s4_as_written,
    s5_as_written,
    s6_as_written,
)


@st.composite
def problems(draw):
    """Maps after a ReLU, with classes that differ, some of one sample."""
    n, k = draw(st.integers(5, 12)), draw(st.integers(2, 4))
    channels, height, width = draw(st.integers(1, 5)), draw(st.integers(2, 5)), draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    labels = torch.randint(k, (n,), generator=generator)
    labels[:k] = torch.arange(k)
    shape = (channels, height, width)
    maps = 2 * torch.randn(n, *shape, generator=generator, dtype=torch.float64)
    return (maps + torch.randn(k, *shape, generator=generator, dtype=torch.float64)[labels]).relu(), labels


@given(problems())
def test_the_scatters_are_the_sums_of_the_paper(problem):
    maps, labels = problem
    assert between_class_scatter(maps, labels) == pytest.approx(s1_as_written(maps, labels), rel=1e-9)
    assert within_class_scatter(maps, labels) == pytest.approx(s2_as_written(maps, labels), rel=1e-9)
    if s2_as_written(maps, labels) > 0:
        assert scatter_ratio(maps, labels) == pytest.approx(s3_as_written(maps, labels), rel=1e-9)


@given(problems())
def test_the_correlation_of_channels_is_the_sum_of_the_paper(problem):
    maps = problem[0] + torch.arange(problem[0][0, 0].numel()).view(problem[0].shape[2:])  # no channel is constant
    assert channel_correlation(maps) == pytest.approx(s4_as_written(maps), rel=1e-9)


@given(problems())
def test_the_terms_are_the_means_of_the_paper(problem):
    s5, s6 = feature_metrics_terms(map_statistics(problem[0]))
    assert s5 == pytest.approx(s5_as_written(problem[0]), rel=1e-6)  # statistics of an image are kept in float32
    assert s6 == pytest.approx(s6_as_written(problem[0]), rel=1e-6)


zoos = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 50)), min_size=2, max_size=8).filter(
    lambda zoo: all(max(column) - min(column) > 1e-3 for column in zip(*zoo, strict=True))
)


@given(zoos)
def test_the_score_is_that_of_the_paper_over_the_zoo(zoo):
    expected = c56_as_written(*zip(*zoo, strict=True))
    assert feature_metrics_over_zoo(torch.tensor(zoo, dtype=torch.float64)).tolist() == pytest.approx(
        expected, abs=1e-9
    )


@given(zoos, st.sampled_from([1e-6, 1.0, 1e6]), st.sampled_from([-5.0, 0.0, 1.0]))
def test_the_scale_of_a_term_does_not_matter_as_it_is_normalised_over_the_zoo(zoo, scale, shift):
    terms = torch.tensor(zoo, dtype=torch.float64)
    other = terms * torch.tensor([1.0, scale]) + torch.tensor([shift, 0.0])
    torch.testing.assert_close(feature_metrics_over_zoo(other), feature_metrics_over_zoo(terms), rtol=0, atol=1e-8)


@given(zoos)
def test_scores_lie_between_minus_one_and_one_and_sparser_is_better(zoo):
    terms = torch.tensor([*zoo, (-0.1, -0.1), (1.1, 50.1)], dtype=torch.float64)  # the sparsest and the densest
    scores = feature_metrics_over_zoo(terms)
    assert scores.abs().max() <= 1 + 1e-12
    assert scores[-2:].tolist() == pytest.approx([1, -1])


def test_a_term_that_all_share_counts_nothing():
    scores = feature_metrics_over_zoo(torch.tensor([[0.5, 1.0], [0.5, 3.0]], dtype=torch.float64))
    assert scores.tolist() == pytest.approx([SPARSITY_WEIGHT, -SPARSITY_WEIGHT])
    rounded = feature_metrics_over_zoo(torch.tensor([[0.1 + 0.2, 1.0], [0.3, 3.0]], dtype=torch.float64))
    assert rounded.tolist() == scores.tolist()  # 0.1 + 0.2 is 0.3 but for rounding
    assert feature_metrics_over_zoo(torch.tensor([[0.5, 1.0]])).tolist() == [0.0]


def test_an_image_without_zeros_counts_as_having_one():
    maps = torch.full((1, 2, 3, 3), 4.0)
    assert map_statistics(maps).tolist() == [[1.0, 18.0]]
    assert map_statistics(torch.zeros(1, 2, 3, 3)).tolist() == [
        [0.0, 1.0]
    ]  # the maximum is 0: all is high, all is zero


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_statistics_are_counts_whatever_the_type(dtype):
    maps = torch.tensor([[[[0.0, 2.0], [1.5, 0.0]]], [[[0.0, 0.5], [0.25, 8.0]]]])
    assert torch.equal(map_statistics(maps.to(dtype)), map_statistics(maps))


@pytest.mark.parametrize("scale", [1 / 3, 1e-8, 1e8])
def test_a_constant_channel_correlates_with_nothing_although_its_mean_is_rounded(scale):
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(20, 3, 1, 1, generator=generator).expand(-1, -1, 7, 9).double() * scale
    maps[:, 0] = torch.rand(20, 7, 9, generator=generator)
    assert channel_correlation(maps) == pytest.approx(20)


def test_classes_whose_samples_are_equal_have_no_ratio_of_scatters():
    maps = torch.rand(2, 2, 3, 3, dtype=torch.float64).repeat_interleave(3, dim=0)
    with pytest.raises(ValueError, match="classes whose samples differ, got 6 samples of 2 classes"):
        scatter_ratio(maps, torch.arange(6) // 3)
    with pytest.raises(ValueError, match="classes whose samples differ, got 6 samples of 6 classes"):
        scatter_ratio(torch.rand(6, 2, 3, 3), torch.arange(6))


@pytest.mark.parametrize("statistics", [torch.rand(5, 3), torch.rand(5), torch.full((5, 2), torch.nan)])
def test_other_than_the_statistics_of_images_is_refused(statistics):
    with pytest.raises(ValueError, match="`statistics` must"):
        feature_metrics_terms(statistics)


@pytest.mark.parametrize("terms", [torch.rand(5, 3), torch.rand(0, 2), torch.tensor([[torch.nan, 1.0], [0.0, 2.0]])])
def test_other_than_the_terms_of_candidates_is_refused(terms):
    with pytest.raises(ValueError, match="`terms` must"):
        feature_metrics_over_zoo(terms)
