import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from hf_zoosel.linearized import generalization_score, initial_decrease, label_gradient_score, signed_targets


def quadratic_form(y, matrix):
    """y^T matrix y, entry by entry."""
    return sum(y[i] * matrix[i][j] * y[j] for i in range(len(y)) for j in range(len(y)))


@st.composite
def problems(draw, most_classes=4):
    n, k = draw(st.integers(4, 12)), draw(st.integers(2, most_classes))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    gradients = torch.randn(n, n + draw(st.integers(3, 20)), dtype=torch.float64, generator=generator)
    labels = torch.randint(k, (n,), generator=generator)
    labels[:k] = torch.arange(k)
    return gradients @ gradients.T, labels


@given(problems())
def test_generalization_score_equals_minus_the_bound_averaged_over_classes(problem):
    kernel, labels = problem
    inverse = np.linalg.inv(kernel.numpy())
    classes = sorted(set(labels.tolist()))
    columns = [[1.0 if label == c else -1.0 for label in labels.tolist()] for c in classes]
    bound = sum(quadratic_form(y, inverse) for y in columns) / len(columns) / len(labels)
    assert generalization_score(kernel, labels) == pytest.approx(-bound, rel=1e-9)


@given(problems(most_classes=2))
def test_two_classes_give_equation_4_of_the_paper(problem):
    kernel, labels = problem
    y = np.where(labels.numpy() == 1, 1.0, -1.0)
    values, vectors = np.linalg.eigh(kernel.numpy())
    bound = sum((y @ vectors[:, k]) ** 2 / values[k] for k in range(len(y))) / len(y)
    assert generalization_score(kernel, labels) == pytest.approx(-bound, rel=1e-10)


@given(problems(), st.sampled_from([1e-6, 0.1, 3.0]))
def test_a_ridge_is_relative_to_the_mean_of_the_diagonal(problem, ridge):
    kernel, labels = problem
    shifted = kernel + ridge * kernel.diagonal().mean() * torch.eye(len(kernel), dtype=torch.float64)
    expected = generalization_score(shifted, labels)
    assert generalization_score(kernel, labels, ridge=ridge) == pytest.approx(expected, rel=1e-10)
    assert generalization_score(1e9 * kernel, labels, ridge=ridge) == pytest.approx(expected / 1e9, rel=1e-10)


@given(problems(), st.randoms(use_true_random=False))
def test_scores_ignore_the_order_of_samples_and_the_names_of_classes(problem, random):
    kernel, labels = problem
    order = list(range(len(labels)))
    random.shuffle(order)
    renamed = 100 - 7 * labels[order]
    shuffled = kernel[order][:, order]
    for score in (generalization_score, label_gradient_score):
        assert score(shuffled, renamed) == pytest.approx(score(kernel, labels), rel=1e-9, abs=1e-9)


@given(problems(), st.integers(1, 3))
def test_initial_decrease_equals_equation_3_added_over_outputs(problem, k):
    kernel, labels = problem
    residual = torch.randn(len(labels), k, dtype=torch.float64, generator=torch.Generator().manual_seed(k))
    expected = sum(quadratic_form(dy, kernel.tolist()) for dy in residual.T.tolist())
    assert initial_decrease(kernel, residual) == pytest.approx(expected, rel=1e-10)
    flat, column = initial_decrease(kernel, residual[:, 0]), initial_decrease(kernel, residual[:, :1])
    assert flat == pytest.approx(column, rel=1e-12)


@given(problems())
def test_label_gradient_score_equals_equation_7_with_both_matrices(problem):
    kernel, labels = problem
    same = np.where(labels[:, None] == labels, 1.0, -1.0)
    expected = (kernel.numpy() * same).sum()
    assert label_gradient_score(kernel, labels) == pytest.approx(
        expected, rel=1e-10, abs=1e-12 * kernel.abs().sum().item()
    )


@given(problems(most_classes=2))
def test_for_two_classes_the_label_kernel_is_the_outer_product_of_the_labels(problem):
    kernel, labels = problem
    decrease = initial_decrease(kernel, signed_targets(labels))
    assert label_gradient_score(kernel, labels) == pytest.approx(decrease, rel=1e-9, abs=1e-9)


@given(problems(), st.integers(0, 2**31))
def test_jensens_inequality_of_equation_5_bounds_the_inverse_form(problem, seed):
    kernel, _ = problem
    dy = torch.randn(len(kernel), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    norm2 = dy.square().sum().item()
    inverse = initial_decrease(torch.linalg.inv(kernel), dy)
    assert (initial_decrease(kernel, dy) / norm2) ** -1 <= inverse / norm2 * (1 + 1e-9)


@given(problems(most_classes=2))
def test_equation_5_binds_the_two_scores(problem):
    kernel, labels = problem
    n = len(labels)
    assert -generalization_score(kernel, labels) >= n / initial_decrease(kernel, signed_targets(labels)) * (1 - 1e-9)


def test_labels_along_the_first_eigenvector_score_best():
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    shuffled = torch.tensor([0, 1, 0, 1, 0, 1])
    y = signed_targets(labels)
    kernel = 5 * y @ y.T + torch.eye(6, dtype=torch.float64)
    assert generalization_score(kernel, labels) > generalization_score(kernel, shuffled)
    assert label_gradient_score(kernel, labels) > label_gradient_score(kernel, shuffled)
    assert generalization_score(kernel, labels) == pytest.approx(-1 / 31, rel=1e-12)  # eigenvalue 5 * 6 + 1


def test_targets_have_a_column_per_class_but_one_for_two_classes():
    assert signed_targets(torch.tensor([True, False])).tolist() == [[1.0], [-1.0]]
    assert signed_targets(torch.tensor([9, 2, 5])).tolist() == [[-1, -1, 1], [1, -1, -1], [-1, 1, -1]]
    assert signed_targets(torch.tensor([0, 1], dtype=torch.uint8)).dtype == torch.float64


@pytest.mark.parametrize("gradients", [torch.ones(4, 9), torch.eye(4)[[0, 0, 1, 2]], torch.randn(8, 3)])
def test_a_singular_kernel_is_refused_with_the_remedy_which_helps(gradients):
    kernel, labels = gradients @ gradients.T, torch.arange(len(gradients)) % 2
    with pytest.raises(ValueError, match=r"positive definite, got rank [13] of [48].*`ridge=1e-6`"):
        generalization_score(kernel, labels)
    assert generalization_score(kernel, labels, ridge=1e-6) < 0


def test_a_kernel_of_zeros_is_refused_even_with_a_ridge():
    with pytest.raises(ValueError, match="rank 0 of 2"):
        generalization_score(torch.zeros(2, 2), torch.tensor([0, 1]), ridge=0.1)


def test_a_kernel_close_to_singular_warns():
    kernel = torch.diag(torch.tensor([1.0, 1.0, 1e-11], dtype=torch.float64))
    with pytest.warns(UserWarning, match=r"close to singular \(eigenvalues from 1e-11 to 1\)"):
        score = generalization_score(kernel, torch.tensor([0, 1, 1]))
    assert score == pytest.approx(-1e11 / 3, rel=1e-9)


@pytest.mark.parametrize("score", [generalization_score, label_gradient_score])
def test_inputs_are_as_before_and_any_float_type_will_do(score):
    g = torch.randn(6, 40, generator=torch.Generator().manual_seed(0))
    kernel, labels = g @ g.T, torch.tensor([0, 1, 2, 0, 1, 2], dtype=torch.int16)
    before = kernel.clone()
    exact = score(kernel.double(), labels)
    assert score(kernel, labels) == pytest.approx(exact, rel=1e-12)
    assert score(kernel.half(), labels) == pytest.approx(exact, rel=0.1)
    assert torch.equal(kernel, before)


LABELS, RESIDUAL = torch.tensor([0, 1, 1]), torch.ones(3)
GOOD = torch.eye(3)


@pytest.mark.parametrize(
    ("kernel", "error", "message"),
    [
        (
            torch.eye(3, dtype=torch.int64),
            TypeError,
            "`kernel` must be a floating-point torch tensor, got torch.int64",
        ),
        (np.eye(3), TypeError, "got ndarray"),
        (torch.ones(3, 2), ValueError, r"square .* got shape \(3, 2\)"),
        (torch.ones(0, 0), ValueError, "square"),
        (GOOD * torch.nan, ValueError, "finite, got 9 of 9"),
        (torch.triu(torch.ones(3, 3)), ValueError, "symmetric, got entries that differ .* by up to 1 "),
    ],
)
def test_a_bad_kernel_is_refused_by_every_score(kernel, error, message):
    for score, argument in [
        (generalization_score, LABELS),
        (label_gradient_score, LABELS),
        (initial_decrease, RESIDUAL),
    ]:
        with pytest.raises(error, match=message):
            score(kernel, argument)


def test_a_kernel_with_negative_eigenvalues_is_refused():
    with pytest.raises(ValueError, match="positive semi-definite, got a least eigenvalue of -1 "):
        generalization_score(torch.diag(torch.tensor([1.0, -1.0, 2.0])), LABELS)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (torch.tensor([[0, 1, 1]]), ValueError, r"shape \(3,\), .* got \(1, 3\)"),
        (torch.tensor([0, 1]), ValueError, r"shape \(3,\), one per row of `kernel`, got \(2,\)"),
        (torch.tensor([1, 1, 1]), ValueError, r"at least 2 classes, got only class \[1\]"),
        (torch.ones(3), TypeError, "integer class ids"),
        ([0, 1, 1], TypeError, "integer class ids, got list"),
    ],
)
def test_bad_labels_are_refused(labels, error, message):
    for score in (generalization_score, label_gradient_score):
        with pytest.raises(error, match=message):
            score(GOOD, labels)


@pytest.mark.parametrize(
    ("residual", "error", "message"),
    [
        (torch.ones(2), ValueError, r"shape \(3,\) or \(3, n_outputs\).* got \(2,\)"),
        (torch.ones(3, 0), ValueError, "shape"),
        (torch.ones(3, 1, 1), ValueError, "shape"),
        (torch.tensor([0.0, torch.inf, 0.0]), ValueError, "`residual` must be finite, got 1 of 3"),
        (LABELS, TypeError, "`signed_targets` makes targets of class labels"),
    ],
)
def test_a_bad_residual_is_refused(residual, error, message):
    with pytest.raises(error, match=message):
        initial_decrease(GOOD, residual)


@pytest.mark.parametrize("ridge", [-0.1, float("nan"), float("inf")])
def test_a_bad_ridge_is_refused(ridge):
    with pytest.raises(ValueError, match="`ridge` must be a finite number of at least 0"):
        generalization_score(GOOD, LABELS, ridge=ridge)
