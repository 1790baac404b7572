"""Co-Tuning's category relationship: which source classes each target class looks like to a pre-trained head."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hf_zoosel.objectives._rows import check_class_ids, check_probabilities
from hf_zoosel.objectives.relationship_fit import STRENGTHS as STRENGTHS, fit_grid
from hf_zoosel.objectives.relationship_record import Method, Relationship, check_method, listed
from hf_zoosel.objectives.temperature import temperature_and_side


class _Images(NamedTuple):
    """Predictions ``(n, n_source)`` in float64 and target class ids ``(n,)``, on the CPU."""

    probs: Tensor
    labels: Tensor


def category_relationship(
    source_probs: Tensor,
    labels: Tensor,
    *,
    validation_probs: Tensor | None = None,
    validation_labels: Tensor | None = None,
    method: Method = "reverse",
    strengths: Sequence[float] = STRENGTHS,
    target_names: Sequence[str] | None = None,
    source_names: Sequence[str] | None = None,
) -> Relationship:
    """Learn p(source class | target class) from what a source head says of target images.

    "direct" averages the predictions over the images of each target class, those of validation included.

    "reverse" learns p(target class | source class) and applies Bayes' rule. A multinomial logistic regression without
    intercept goes from predictions to labels, with the inverse strength of best validation accuracy (of equal ones
    the first); one scale calibrates its logits on validation. A source class is then a prediction that is sure of it:
    p(t | s) = softmax_t(scale * weights_st), and p(s | t) is p(t | s) p(s) over its sum, with p(s) the mean
    prediction over all images.

    Args:
        source_probs: Calibrated predictions of the source head for the training images, without augmentation,
            shape ``(n, n_source)``: ``(logits / temperature).softmax(-1)``, see ``fit_temperature``.
        labels: Their target class ids from 0, shape ``(n,)``.
        validation_probs: The same for other images, shape ``(n_validation, n_source)``; "reverse" needs them.
        validation_labels: Their target class ids, shape ``(n_validation,)``.
        method: "reverse" or "direct".
        strengths: Inverse strengths of the penalty to choose from: the C of scikit-learn.
        target_names: Names of the target classes; by default their ids.
        source_names: Names of the source classes; by default their columns.

    Returns:
        The matrix with its names and what was chosen on the way.

    Raises:
        ValueError: If shapes disagree, rows are not probabilities, a strength is not positive, a target class has no
            image (for "reverse": no training image), or "reverse" has one target class or no validation images.
        TypeError: If probabilities are not floats or labels not integers.

    Reference:
        You et al., "Co-Tuning for Transfer Learning", NeurIPS 2020, Algorithms 1 and 2, and
        ``module/relationship_learning.py`` of https://github.com/thuml/CoTuning. Deviations: float64; regressions
        to their optimum, where the authors stop after 100 iterations; a scale that is bounded (see
        ``fit_temperature``); two target classes, of which the authors' matrix has one; Bayes' rule in
        logarithms, so that no row is 0 / 0.

    Example:
        >>> import torch
        >>> probs = torch.tensor([[0.75, 0.25, 0.0], [0.25, 0.75, 0.0], [0.5, 0.0, 0.5]])
        >>> category_relationship(probs, torch.tensor([0, 0, 1]), method="direct").matrix
        tensor([[0.5000, 0.5000, 0.0000],
                [0.5000, 0.0000, 0.5000]], dtype=torch.float64)
    """
    check_method(method)
    train = _checked(source_probs, labels, "")
    validation = _checked_validation(validation_probs, validation_labels, train)
    probs, y = (torch.cat(both) for both in zip(train, validation, strict=True))
    targets = _names(target_names, int(y.max()) + 1, "target_names", "labels")
    sources = _names(source_names, probs.shape[1], "source_names", "source_probs")
    if method == "direct":
        _check_every_class(y, targets, "`labels` and `validation_labels`")
        sums = probs.new_zeros(len(targets), probs.shape[1]).index_add_(0, y, probs)
        return Relationship(sums / sums.sum(dim=1, keepdim=True), targets, sources, method)
    _check_reverse(train, validation, targets, strengths)
    return _reverse(train, validation, strengths, (targets, sources))


def _reverse(
    train: _Images, validation: _Images, strengths: Sequence[float], names: tuple[tuple[str, ...], tuple[str, ...]]
) -> Relationship:
    fit = fit_grid(train, validation, len(names[0]), strengths)
    temperature, side = temperature_and_side(validation.probs @ fit.weights, validation.labels)
    if side:
        warnings.warn(
            f"the {len(validation.labels):,} validation images set no limit to the scale of the regression, here "
            f"{1 / temperature:.3g}: a source class goes to {'one target class' if side == 'low' else 'all alike'}. "
            "Hold out more images, or use method='direct'.",
            RuntimeWarning,
            stacklevel=3,
        )
    if not fit.converged:
        warnings.warn("a regression of the relationship did not reach its optimum", RuntimeWarning, stacklevel=3)
    marginal = torch.cat([train.probs, validation.probs]).mean(dim=0)  # p(s), (n_source,)
    matrix = bayes(fit.weights / temperature, marginal)
    targets, sources = names
    return Relationship(
        matrix, targets, sources, "reverse", fit.strength, 1 / temperature, fit.accuracy, converged=fit.converged
    )


def bayes(logits: Tensor, marginal: Tensor) -> Tensor:
    """Return p(s | t), shape ``(n_target, n_source)``, of the logits of p(t | s) ``(n_source, n_target)`` and p(s)."""
    joint = logits.log_softmax(dim=1) + marginal.log()[:, None]  # ln p(t, s): no row is without a largest entry
    return joint.softmax(dim=0).T.contiguous()


def _checked(probs: Tensor, labels: Tensor, prefix: str) -> _Images:
    rows = check_probabilities(probs, f"{prefix or 'source_'}probs")
    return _Images(rows.cpu().double(), check_class_ids(labels, rows, f"{prefix}labels").cpu())


def _checked_validation(probs: Tensor | None, labels: Tensor | None, train: _Images) -> _Images:
    """Return the validation images, of which there may be none."""
    if probs is None and labels is None:
        return _Images(train.probs[:0], train.labels[:0])
    if probs is None or labels is None:
        raise ValueError("`validation_probs` and `validation_labels` must come together, got one. Pass both or none.")
    validation = _checked(probs, labels, "validation_")
    if validation.probs.shape[1] != train.probs.shape[1]:
        raise ValueError(
            f"`validation_probs` must have the {train.probs.shape[1]} columns of `source_probs`, got "
            f"{validation.probs.shape[1]}. Use the predictions of one source head."
        )
    return validation


def _names(names: Sequence[str] | None, n: int, argument: str, of: str) -> tuple[str, ...]:
    if names is None:
        return tuple(map(str, range(n)))
    if len(names) < n or (of == "source_probs" and len(names) > n):
        raise ValueError(f"`{argument}` must name the {n} classes of `{of}`, got {len(names)} names. Name each class.")
    return tuple(names)


def _check_every_class(y: Tensor, names: tuple[str, ...], where: str) -> None:
    counts = y.bincount(minlength=len(names))
    missing = [name for name, count in zip(names, counts.tolist(), strict=True) if not count]
    if missing:
        raise ValueError(
            f"{where} must contain every target class, got no image of {listed(missing)} ({len(missing)} of "
            f"{len(names)}). Move images of each class there, or leave these classes out."
        )


def _check_reverse(train: _Images, validation: _Images, names: tuple[str, ...], strengths: Sequence[float]) -> None:
    if len(strengths) == 0 or not 0 < min(strengths) <= max(strengths) < float("inf"):
        raise ValueError(f"`strengths` must be positive and at least one, got {list(strengths)}. See `STRENGTHS`.")
    if len(validation.labels) == 0:
        raise ValueError(
            "`validation_probs` must hold images to choose the strength and scale by, got none. Hold out a part of "
            "the training images (20 % in the paper), or use method='direct'."
        )
    _check_every_class(train.labels, names, "`labels`")
    if len(names) < 2:
        raise ValueError(f"`labels` must be of at least 2 classes, got {listed(names)} alone. Use method='direct'.")
