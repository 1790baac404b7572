import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings, strategies as st

from hf_zoosel.metrics.ncti import ncti_over_zoo, ncti_terms
from tests.metrics.transcriptions.ncti import ncti_over_zoo_as_written, ncti_terms_as_written


def problem(n, d, k, scale=1.0, signal=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(k, (n,), generator=generator)
    labels[:k] = torch.arange(k)
    classes = signal * torch.randn(k, d, generator=generator, dtype=torch.float64)
    return scale * (2 + classes[labels] + torch.randn(n, d, generator=generator, dtype=torch.float64)), labels


def is_regular(features, labels, n_components):
    """Whether the within-class covariance of the components is far from singular; near it fewer are taken."""
    centred = features - features.mean(dim=0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    z = centred @ directions[: min(n_components, len(labels) - len(labels.unique()))].T
    means = torch.stack([z[labels == label].mean(dim=0) for label in labels.unique()])
    sizes = torch.linalg.svdvals(z - means[labels])
    return sizes[-1] > 1e-4 * sizes[0]


@settings(max_examples=40)
@given(
    st.integers(12, 40),
    st.integers(1, 60),
    st.integers(2, 4),
    st.sampled_from([0.03, 0.3]),  # strong and weak shrinkage
    st.sampled_from([3, 64]),
    st.integers(0, 999),
)
def test_terms_equal_the_formulas_of_the_paper(n, d, k, scale, n_components, seed):
    features, labels = problem(n, d, k, scale, seed=seed)
    assume(is_regular(features, labels, n_components))
    expected = ncti_terms_as_written(features, labels, n_components)
    assert ncti_terms(features, labels, n_components=n_components) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n", "d", "k"), [(300, 20, 5), (120, 100, 3), (90, 200, 4)])
def test_terms_equal_the_formulas_of_the_paper_at_the_floor_of_the_shrinkage(n, d, k):
    features, labels = problem(n, d, k, scale=5.0)
    assert ncti_terms(features, labels, n_components=16) == pytest.approx(
        ncti_terms_as_written(features, labels, 16), rel=1e-9
    )


def test_terms_are_those_of_scikit_learns_components_and_discriminants():
    """The authors' code: at the floor of the shrinkage its directions are those of the class means as well."""
    analysis = pytest.importorskip("sklearn.discriminant_analysis")
    decomposition = pytest.importorskip("sklearn.decomposition")
    features, labels = problem(400, 100, 5, scale=3.0, signal=0.2)
    y = labels.numpy()
    z = decomposition.PCA(n_components=64, svd_solver="full").fit_transform(features.numpy())
    model = analysis.LinearDiscriminantAnalysis(solver="eigen", shrinkage=1e-10)
    low = model.fit_transform(z, y)
    probs = model.predict_proba(z)
    expected = (
        np.linalg.norm(low - low.mean(axis=0), ord="nuc"),
        probs[np.arange(len(y)), y].mean(),
        np.log(sum(np.linalg.norm(probs[y == c], ord="nuc") for c in range(5))),
    )
    assert ncti_terms(features, labels) == pytest.approx(expected, rel=1e-7)


@settings(max_examples=15)
@given(st.integers(12, 30), st.integers(2, 40), st.integers(0, 999), st.randoms(use_true_random=False))
def test_terms_ignore_rotation_translation_sample_order_and_class_names(n, d, seed, random):
    features, labels = problem(n, d, 3, scale=0.2, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64)).Q
    order = random.sample(range(n), n)
    other = ncti_terms(features[order] @ rotation + 5, 100 - 7 * labels[order])
    assert other == pytest.approx(ncti_terms(features, labels), rel=1e-8)


def test_components_are_exact_so_two_calls_agree_where_the_authors_are_random():
    features, labels = problem(600, 520, 4)
    assert ncti_terms(features, labels) == ncti_terms(features.clone(), labels)


def test_collapsed_classes_beat_scattered_ones_in_every_term():
    spread, near = (ncti_terms(*problem(200, 20, 4, signal=signal)) for signal in (0.2, 3.0))
    assert near[0] > spread[0]
    assert near[1] > spread[1]
    assert near[2] < spread[2]


def test_does_not_overwrite_its_input():
    features, labels = problem(50, 10, 3)
    before = features.clone()
    ncti_terms(features, labels)
    assert torch.equal(features, before)


def test_every_sample_its_own_class_is_scored():
    terms = ncti_terms(problem(10, 6, 2)[0], torch.arange(10))
    assert np.isfinite(terms).all()


@pytest.mark.parametrize("shape", [(6, 3), (6, 30)])
def test_equal_features_have_no_geometry_and_the_posterior_of_the_class_frequencies(shape):
    nuclear, posterior, variability = ncti_terms(torch.full(shape, 0.1), torch.tensor([0, 0, 0, 1, 1, 2]))
    assert nuclear == 0
    assert posterior == pytest.approx(14 / 36)
    row = np.sqrt((9 + 4 + 1) / 36)
    assert variability == pytest.approx(np.log(row * (np.sqrt(3) + np.sqrt(2) + 1)))


@pytest.mark.parametrize("copies", [1, 5])
def test_classes_that_are_points_have_a_posterior_of_one(copies):
    labels = torch.arange(12) % 3
    points = torch.nn.functional.one_hot(labels).double().repeat(1, copies)
    assert ncti_terms(points, labels)[1:] == pytest.approx((1, np.log(3 * 2)))


def test_duplicates_and_features_that_repeat_each_other_are_scored():
    features, labels = problem(30, 3, 3, scale=0.3)
    repeated = torch.cat([features, features[:9]]).repeat(1, 40) / 40**0.5
    labels = torch.cat([labels, labels[:9]])
    assert ncti_terms(repeated, labels) == pytest.approx(ncti_terms(repeated[:, :3] * 40**0.5, labels), rel=1e-8)


def test_duplicates_in_few_samples_do_not_blow_the_geometry_up():
    """Directions in which the residuals do not vary at all would be worth 1e5 each at the floor of the shrinkage."""
    features, labels = problem(40, 90, 3, scale=3.0, signal=0.3)
    repeated, classes = torch.cat([features, features[:5]]), torch.cat([labels, labels[:5]])
    assert ncti_terms(repeated, classes)[0] < 100 * ncti_terms(features, labels, n_components=20)[0]
    order = torch.randperm(45, generator=torch.Generator().manual_seed(0))
    assert ncti_terms(repeated[order], classes[order]) == pytest.approx(ncti_terms(repeated, classes), rel=1e-9)


def test_a_number_of_components_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="`n_components` must be at least 1, got 0"):
        ncti_terms(*problem(20, 4, 2), n_components=0)


@given(st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 1), st.floats(-5, 10)), min_size=2, max_size=8))
def test_the_zoo_equals_the_formula_of_the_paper(terms):
    if np.ptp(np.array(terms), axis=0).min() > 1e-6:
        scores = ncti_over_zoo(torch.tensor(terms, dtype=torch.float64))
        assert scores.tolist() == pytest.approx(ncti_over_zoo_as_written(terms), rel=1e-9, abs=1e-12)
        assert scores.min() >= -1
        assert scores.max() <= 2


def test_a_score_depends_on_the_other_candidates():
    terms = torch.tensor([[10.0, 0.90, 1.0], [11.0, 0.5, 1.0], [11.5, 0.0, 1.0], [90.0, 0.2, 1.0]])
    few, all_of_them = ncti_over_zoo(terms[:2]), ncti_over_zoo(terms)
    assert few[0] == few[1]
    assert all_of_them[0] > all_of_them[1]


@pytest.mark.parametrize("terms", [[[8.0, 0.7, 3.0]], [[8.0, 0.7, 3.0]] * 4])
def test_candidates_that_are_alone_or_equal_score_zero(terms):
    assert ncti_over_zoo(torch.tensor(terms)).tolist() == [0.0] * len(terms)


def test_terms_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"`terms` must have shape \(n_candidates, 3\), got \(4, 2\)"):
        ncti_over_zoo(torch.ones(4, 2))
