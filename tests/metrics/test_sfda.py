import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from hf_zoosel.metrics._discriminant import posteriors, shrinkage_of
from hf_zoosel.metrics._scatter import scatter_of
from hf_zoosel.metrics.sfda import sfda, sfda_influence
from tests.metrics.transcriptions.sfda import own_posteriors_as_written, sfda_as_written, shrinkage_as_written


def problem(n, d, k, scale=1.0, signal=0.7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(k, (n,), generator=generator)
    labels[:k] = torch.arange(k)
    classes = signal * torch.randn(k, d, generator=generator, dtype=torch.float64)
    return scale * (3 + classes[labels] + torch.randn(n, d, generator=generator, dtype=torch.float64)), labels


def sfda_in_sample(features, labels):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "sfda is saturated")
        return sfda(features, labels, held_out=False)


@settings(max_examples=40)
@given(
    st.integers(6, 24),
    st.integers(1, 30),
    st.integers(2, 4),
    st.sampled_from([0.02, 0.1, 3.0]),  # shrinkages near 1, between, and at the floor
    st.integers(0, 999),
)
def test_equals_the_formulas_of_the_paper(n, d, k, scale, seed):
    features, labels = problem(n, d, k, scale, seed=seed)
    expected = sfda_as_written(features, labels, held_out=False)
    assert sfda_in_sample(features, labels) == pytest.approx(expected, rel=1e-9)
    assert sfda(features, labels) == pytest.approx(sfda_as_written(features, labels), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("n", "d"), [(60, 10), (40, 70), (24, 20)])
@pytest.mark.parametrize("held_out", [False, True])
def test_posteriors_equal_a_fit_for_each_sample(n, d, held_out):
    features, labels = problem(n, d, 4, scale=0.2)
    scatter = scatter_of(features, labels)
    shrinkage = shrinkage_of(scatter)
    assert shrinkage == pytest.approx(shrinkage_as_written(features.numpy(), labels.numpy()), rel=1e-12)
    expected = own_posteriors_as_written(features.numpy(), labels.numpy(), shrinkage, held_out)
    assert posteriors(scatter, shrinkage, held_out=held_out).numpy() == pytest.approx(expected, rel=1e-9)


def test_equals_two_fits_of_the_shrunk_discriminant_analysis_of_scikit_learn():
    analysis = pytest.importorskip("sklearn.discriminant_analysis")
    features, labels = problem(150, 8, 4, scale=0.3)
    x, y = features.numpy(), labels.numpy()
    shrinkage = shrinkage_of(scatter_of(features, labels))

    def own(rows):
        model = analysis.LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(rows, y)
        return model.predict_proba(rows)[np.arange(len(y)), y]

    means = np.stack([x[y == c].mean(axis=0) for c in range(4)])
    others = (means.sum(axis=0) - means) / 3
    keep = own(x)[:, None]
    expected = own(keep * x + (1 - keep) * others[y]).mean()
    assert sfda(features, labels, held_out=False) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("shape", [(150, 200), (120, 110)])
def test_the_largest_eigenvalue_is_exact_where_it_is_found_by_iteration(shape):
    features, labels = problem(*shape, 5, scale=0.3)
    expected = shrinkage_as_written(features.numpy(), labels.numpy())
    assert expected > 1e-9
    assert shrinkage_of(scatter_of(features, labels)) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("shape", [(40, 6), (20, 50)])
def test_its_input_is_not_overwritten_so_a_second_call_gives_the_same(shape, held_out):
    """The authors' code mixes the caller's features in place: 0.9990, then 0.8826."""
    features, labels = problem(*shape, 3, scale=0.2)
    before = features.clone()
    score = sfda if held_out else sfda_in_sample
    scores = [score(features, labels) for _ in range(2)]
    assert torch.equal(features, before)
    assert scores[0] == scores[1]


def test_does_not_saturate_with_no_more_samples_than_features():
    """The authors' code gives 1 to every model with d >= n; the last of these has no signal at all."""
    scores = [sfda(*problem(60, 150, 3, signal=signal)) for signal in (1.0, 0.3, 0.2, 0.0)]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 4
    assert scores[0] > 0.9
    assert scores[-1] < 0.5


@pytest.mark.parametrize("signal", [0.0, 1.0])
def test_the_papers_form_warns_where_it_saturates(signal):
    with pytest.warns(UserWarning, match=r"saturated: with 150 features all 60 samples fit.*held_out=True") as caught:
        assert sfda(*problem(60, 150, 3, signal=signal), held_out=False) == pytest.approx(1, abs=1e-12)
    assert caught[0].filename == __file__


def test_the_softmax_is_applied_once():
    features, labels = problem(60, 4, 2, scale=0.5)
    twice = sfda_as_written(features, labels, held_out=False, soften=True)
    assert sfda(features, labels, held_out=False) != pytest.approx(twice, rel=1e-3)
    assert sfda(features, labels, held_out=False) == pytest.approx(
        sfda_as_written(features, labels, held_out=False), rel=1e-10
    )


@settings(max_examples=15)
@given(st.integers(8, 24), st.integers(2, 30), st.integers(0, 999), st.randoms(use_true_random=False))
def test_ignores_rotation_translation_sample_order_and_class_names(n, d, seed, random):
    features, labels = problem(n, d, 3, scale=0.2, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64)).Q
    order = random.sample(range(n), n)
    other = sfda(features[order] @ rotation + 5, 100 - 7 * labels[order])
    assert other == pytest.approx(sfda(features, labels), rel=1e-8, abs=1e-9)


@pytest.mark.parametrize("shape", [(60, 8), (30, 60)])
def test_ignores_the_scale_of_the_features_at_the_floor_of_the_shrinkage_only(shape):
    features, labels = problem(*shape, 3, scale=10.0, signal=0.2)
    assert sfda(100 * features, labels) == pytest.approx(sfda(features, labels), rel=1e-6)
    assert sfda(0.01 * features, labels) != pytest.approx(sfda(features, labels), rel=1e-3)


def test_the_only_sample_of_a_class_scores_zero():
    features, labels = problem(20, 5, 3)
    labels[7] = 9
    assert sfda_influence(features, labels)[1][7] == 0
    assert sfda(features, torch.arange(20)) == 0


@pytest.mark.parametrize("shape", [(6, 3), (6, 30)])
def test_equal_features_score_as_the_class_frequencies(shape):
    features, labels = torch.full(shape, 0.1), torch.tensor([0, 0, 0, 1, 1, 2])
    assert sfda(features, labels, held_out=False) == pytest.approx((9 + 4 + 1) / 36)
    assert sfda(features, labels) == pytest.approx((3 * 2 / 5 + 2 * 1 / 5) / 6)


@pytest.mark.parametrize("copies", [1, 5])
def test_classes_that_are_points_score_one(copies):
    labels = torch.arange(12) % 3
    assert sfda(torch.nn.functional.one_hot(labels).double().repeat(1, copies), labels) == 1


@pytest.mark.parametrize("copies", [1, 40])
def test_duplicates_and_features_that_repeat_each_other_are_scored(copies):
    features, labels = problem(30, 3, 3, scale=0.3)
    repeated = torch.cat([features, features[:9]]).repeat(1, copies)
    labels = torch.cat([labels, labels[:9]])
    rel = 1e-9 if copies == 1 else 1e-4  # n x n matrices of rank 3, next to a ridge of 1e-10: rounding over 1e-10
    assert sfda(repeated, labels) == pytest.approx(sfda_as_written(repeated, labels), rel=rel)


def test_influence_is_the_posterior_of_each_sample():
    features, labels = problem(40, 6, 3)
    score, influence = sfda_influence(features, labels)
    assert score == sfda(features, labels) == influence.mean().item()
    assert influence.min() >= 0
    assert influence.max() <= 1
