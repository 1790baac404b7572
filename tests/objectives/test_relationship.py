import dataclasses
import math
import warnings

import pytest
import torch
from hypothesis import given, settings, strategies as st

from hf_zoosel.objectives import category_relationship
from tests.objectives.transcriptions.relationship import direct_as_written, reverse_as_written

GRID = (100.0, 10.0, 1.0, 0.1)


def make_case(seed, k=3, n_source=5, n=40, n_validation=20):
    """Predictions that lean to the source classes of their target class, and validation of the same kind."""
    generator = torch.Generator().manual_seed(seed)
    leaning = 2 * torch.randn(k, n_source, generator=generator, dtype=torch.float64)
    labels = torch.arange(n + n_validation) % k
    noise = 2 * torch.randn(n + n_validation, n_source, generator=generator, dtype=torch.float64)
    probs = (leaning[labels] + noise).softmax(1)
    return probs[:n], labels[:n], probs[n:], labels[n:]


def reverse(case, **options):
    probs, labels, validation_probs, validation_labels = case
    return category_relationship(
        probs, labels, validation_probs=validation_probs, validation_labels=validation_labels, **options
    )


def unions(n, generator):
    """Target class t is the union of source classes 3t, 3t + 1, 3t + 2: of 12, four; the head is right in 9 of 10."""
    source = torch.randint(12, (n,), generator=generator)
    said = torch.where(torch.rand(n, generator=generator) < 0.9, source, torch.randint(12, (n,), generator=generator))
    probs = torch.full((n, 12), 0.1 / 11, dtype=torch.float64)
    probs[torch.arange(n), said] = 0.9
    return probs, source // 3


@pytest.mark.parametrize(("seed", "k"), [(0, 3), (1, 3), (2, 4), (3, 2), (4, 2)])
def test_reverse_equals_the_authors_steps_in_a_slow_transcription(seed, k):
    case = make_case(seed, k=k)
    matrix, strength, scale, accuracy = reverse_as_written(*(part.tolist() for part in case), GRID)
    found = reverse(case, strengths=GRID)
    assert (found.strength, found.validation_accuracy) == (strength, accuracy)
    assert found.scale == pytest.approx(scale, rel=1e-6)
    assert torch.allclose(found.matrix, torch.tensor(matrix, dtype=torch.float64), rtol=0, atol=1e-6)
    assert found.converged


def test_direct_equals_the_mean_written_out():
    probs, labels, more, more_labels = make_case(5)
    assert torch.allclose(
        category_relationship(probs, labels, method="direct").matrix,
        torch.tensor(direct_as_written(probs.tolist(), labels.tolist()), dtype=torch.float64),
        rtol=0, atol=1e-14,
    )  # fmt: skip
    together = torch.cat([probs, more]).tolist(), torch.cat([labels, more_labels]).tolist()
    assert torch.allclose(
        reverse((probs, labels, more, more_labels), method="direct").matrix,
        torch.tensor(direct_as_written(*together), dtype=torch.float64),
        rtol=0, atol=1e-14,
    )  # fmt: skip


@pytest.mark.parametrize("method", ["reverse", "direct"])
def test_a_union_of_source_classes_is_related_to_these(method):
    generator = torch.Generator().manual_seed(0)
    case = *unions(600, generator), *unions(200, generator)
    matrix = reverse(case, method=method).matrix
    for t in range(4):
        own = matrix[t, 3 * t : 3 * t + 3]
        assert own.sum() > (0.85 if method == "reverse" else 0.8)
        assert own.min() > 0.2


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.sampled_from(["reverse", "direct"]), st.integers(2, 4), st.randoms())
def test_the_order_of_images_and_classes_changes_nothing(seed, method, k, random):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # some of these validation sets are told apart entirely
        probs, labels, validation, validation_labels = case = make_case(seed, k=k)
        images, targets = random.sample(range(40), 40), torch.tensor(random.sample(range(k), k))
        sources = random.sample(range(5), 5)
        changed = (
            probs[images][:, sources],
            targets[labels[images]],
            validation[:, sources],
            targets[validation_labels],
        )
        one, other = (reverse(which, method=method, strengths=(10.0, 0.1)) for which in (case, changed))
    assert other.strength == one.strength
    assert torch.allclose(other.matrix[targets], one.matrix[:, sources], rtol=0, atol=1e-4)
    assert torch.allclose(one.matrix.sum(dim=1), torch.ones(k, dtype=torch.float64), rtol=0, atol=1e-12)
    assert one.matrix.min() >= 0


def test_of_equal_accuracies_the_first_strength_of_the_grid_is_taken():
    generator = torch.Generator().manual_seed(1)
    case = *unions(120, generator), *unions(60, generator)
    assert reverse(case, strengths=(30.0, 100.0, 10.0)).strength == 30.0
    assert reverse(case, strengths=(10.0, 100.0, 30.0)).strength == 10.0


def test_fewer_images_than_source_classes_will_do():
    probs, labels, validation, validation_labels = make_case(7, k=3, n_source=200, n=12, n_validation=30)
    validation_labels[:2] = validation_labels[:2].flip(0)  # two errors, or the scale has no limit
    found = reverse((probs, labels, validation, validation_labels))
    assert found.matrix.shape == (3, 200)
    assert found.converged


def test_a_source_class_without_mass_gets_none_and_no_row_is_nan():
    padded = [torch.cat([part, torch.zeros(len(part), 1)], dim=1) if part.ndim == 2 else part for part in make_case(8)]
    for method in ("reverse", "direct"):
        with_it, without = reverse(padded, method=method), reverse(make_case(8), method=method)
        assert torch.equal(with_it.matrix[:, -1], torch.zeros(3, dtype=torch.float64))
        assert torch.allclose(with_it.matrix[:, :-1], without.matrix, rtol=0, atol=1e-5)


def test_a_validation_set_that_is_told_apart_entirely_is_said_and_gives_no_nan():
    probs, labels = 0.96 * torch.eye(4, dtype=torch.float64).repeat(10, 1) + 0.01, torch.arange(40) % 4 // 2
    with pytest.warns(RuntimeWarning, match="8 validation images set no limit.*method='direct'"):
        found = reverse((probs, labels, probs[:8], labels[:8]))
    assert found.matrix.isfinite().all()
    assert found.top(2)["0"] == [("0", pytest.approx(0.5)), ("1", pytest.approx(0.5))]


def test_predictions_that_tell_nothing_give_the_marginal():
    probs = torch.tensor([[0.5, 0.25, 0.25]]).repeat(12, 1)
    found = reverse((probs, torch.arange(12) % 2, probs, torch.arange(12) % 2))
    assert torch.allclose(found.matrix, probs[:2].double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_other_types_are_taken_and_sums_are_in_float64(dtype):
    case = make_case(9)
    rounded = [part.to(dtype) if part.ndim == 2 else part.int() for part in case]
    for method in ("reverse", "direct"):
        found = reverse(rounded, method=method)
        assert found.matrix.dtype == torch.float64
        assert torch.allclose(found.matrix.sum(dim=1), torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-12)
    assert torch.allclose(found.matrix, reverse(case, method="direct").matrix, rtol=0, atol=1e-2)


def test_a_target_class_absent_from_training_is_named():
    probs, labels, validation, validation_labels = make_case(0)
    labels = torch.where(labels == 1, 0, labels)
    names = {"target_names": ("lynx", "lorry", "leek")}
    message = r"`labels` must contain every target class, got no image of 'lorry' \(1 of 3\)"
    with pytest.raises(ValueError, match=message):
        reverse((probs, labels, validation, validation_labels), **names)
    assert reverse((probs, labels, validation, validation_labels), method="direct", **names).matrix.isfinite().all()
    with pytest.raises(ValueError, match="got no image of 'lorry'"):
        category_relationship(probs, labels, method="direct", **names)


def test_reverse_without_validation_names_both_remedies():
    probs, labels, *_ = make_case(0)
    with pytest.raises(ValueError, match=r"must hold images.*got none\. Hold out.*or use method='direct'"):
        category_relationship(probs, labels)
    with pytest.raises(ValueError, match="must come together"):
        category_relationship(probs, labels, validation_probs=probs)


def test_one_target_class_can_only_be_averaged():
    probs, labels, *_ = make_case(0)
    case = probs, labels * 0, probs, labels * 0
    assert torch.allclose(reverse(case, method="direct").matrix[0], probs.mean(0), rtol=0, atol=1e-14)
    with pytest.raises(ValueError, match="at least 2 classes, got '0' alone"):
        reverse(case)


@pytest.mark.parametrize("name", ["source_probs", "validation_probs"])
def test_logits_are_refused_with_the_remedy(name):
    case = list(make_case(0))
    place = {"source_probs": 0, "validation_probs": 2}[name]
    case[place] = case[place].log()
    with pytest.raises(ValueError, match=f"`{name}` rows must be probabilities.*pass `logits.softmax"):
        reverse(case)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda c: [c[0], c[1][:-1], *c[2:]], ValueError, r"`labels` must have shape \(40,\).*got \(39,\)"),
        (lambda c: [*c[:3], c[3][:-1]], ValueError, r"`validation_labels` must have shape \(20,\)"),
        (lambda c: [c[0], c[1].double(), *c[2:]], TypeError, "`labels` must be a torch tensor of integer class ids"),
        (lambda c: [c[0], c[1] - 1, *c[2:]], ValueError, "must be class ids at least 0, got ids from -1 to 1"),
        (lambda c: [c[0] * math.nan, *c[1:]], ValueError, "`source_probs` must be finite, got 40 of 40 rows with NaN"),
        (lambda c: [c[0].numpy(), *c[1:]], TypeError, "`source_probs` must be a floating-point torch tensor"),
        (lambda c: [c[0][0], *c[1:]], ValueError, r"`source_probs` must be 2-D.*got shape \(5,\)"),
        (lambda c: [c[0][:0], c[1][:0], *c[2:]], ValueError, r"at least one row and one column, got shape \(0, 5\)"),
        (lambda c: [*c[:2], c[2][:, :4] / c[2][:, :4].sum(1, keepdim=True), c[3]], ValueError, "have the 5 columns"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(change, error, message):
    with pytest.raises(error, match=message):
        reverse(change(make_case(0)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "forward"}, "`method` must be one of 'reverse', 'direct', got 'forward'"),
        ({"strengths": ()}, "`strengths` must be positive and at least one"),
        ({"strengths": (1.0, 0.0)}, "`strengths` must be positive and at least one"),
        ({"target_names": ("a", "b")}, "`target_names` must name the 3 classes of `labels`, got 2 names"),
        ({"source_names": "abcdef"}, "`source_names` must name the 5 classes of `source_probs`, got 6 names"),
        ({"target_names": ("a", "b", "a")}, "`target_names` must name each class once, got 'a' again"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        reverse(make_case(0), **options)


def test_nothing_global_is_touched():
    state = torch.random.get_rng_state()
    first, second = reverse(make_case(0)), reverse(make_case(0))
    assert first == second
    assert first != dataclasses.replace(first, strength=None)
    assert torch.equal(torch.random.get_rng_state(), state)
