"""Multinomial logistic regression without intercept over a grid of strengths, and the best of it on validation.

scikit-learn's own settings would not do: its rule to stop is an absolute bound on the mean gradient, which
predictions, small numbers that they are, meet long before the optimum of a small C; and for a large C 100 steps from
zero end before it.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

# Inverse strengths of the authors, largest first: of equal accuracies the first counts.
STRENGTHS = (1e4, 3e3, 1e3, 3e2, 1e2, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4)

_ROUGH, _FINE = 3e-4, 1e-7  # largest entry of the gradient, in units of that of zero weights: to choose by, to keep
_MOST_STEPS = 5000


@dataclass(frozen=True)
class GridFit:
    """Weights ``(n_source, n_target)`` of the chosen strength, its validation accuracy, whether all was solved."""

    weights: Tensor
    strength: float
    accuracy: float
    converged: bool


def fit_grid(
    train: tuple[Tensor, Tensor], validation: tuple[Tensor, Tensor], n_target: int, strengths: Sequence[float]
) -> GridFit:
    """Fit every strength on ``train`` and keep the first of those with the best accuracy on ``validation``.

    Images are (predictions (n, n_source) in float64, labels (n,)), every target class among those of ``train``. From
    the smallest strength upwards, each starts where the last two lead, in float32; the one that is kept is fitted more
    finely, in float64.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    model = LogisticRegression(fit_intercept=False, warm_start=True, max_iter=_MOST_STEPS)
    unit = _gradient_of_zero(*train, n_target)
    roughly = (train[0].float(), train[1])
    path: list[tuple[float, NDArray[np.float32]]] = []
    best, coefficients, all_solved = (-1.0, 0), None, True
    with threadpool_limits(1):  # threads would add up in any order, and two BLAS libraries wait for each other
        for strength in sorted(set(strengths)):
            _start_ahead(model, path, strength)
            weights, solved = _fit(model, roughly, strength, _ROUGH * unit)
            path = [*path[-1:], (strength, model.coef_)]
            all_solved &= solved
            place = _accuracy(weights, *validation), -list(strengths).index(strength)
            if place > best:
                best, coefficients = place, model.coef_
        model.coef_, strength = coefficients, strengths[-best[1]]
        weights, solved = _fit(model, train, strength, _FINE * unit)
    return GridFit(weights, float(strength), _accuracy(weights, *validation), all_solved and solved)


def _start_ahead(model: "LogisticRegression", path: list[tuple[float, NDArray[np.float32]]], strength: float) -> None:
    """Let the model start on the line through the last two solutions, in the logarithm of their strengths."""
    if len(path) == 2:
        (before, first), (last, second) = path
        model.coef_ = second + (second - first) * (math.log(strength / last) / math.log(last / before))


def _accuracy(weights: Tensor, inputs: Tensor, y: Tensor) -> float:
    return (inputs @ weights).argmax(dim=1).eq(y).double().mean().item()


def _fit(
    model: "LogisticRegression", images: tuple[Tensor, Tensor], strength: float, tolerance: float
) -> tuple[Tensor, bool]:
    """Return the weights (n_source, n_target) and whether they were reached within the steps allowed.

    Of two classes scikit-learn fits v, the difference of their weights, with a penalty |v|^2 / (2 C). With weights
    -v/2 and v/2 the multinomial form has |v|^2 / (4 C) instead: the same problem at half the strength.
    """
    from sklearn.exceptions import ConvergenceWarning

    inputs, y = images
    binary = int(y.max()) == 1
    model.set_params(C=2 * strength if binary else strength, tol=tolerance)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of a line search that ends in rounding, too
        model.fit(inputs.numpy(), y.numpy())
    weights, solved = torch.from_numpy(model.coef_.T).double(), int(model.n_iter_.max()) < _MOST_STEPS
    return (torch.cat([-weights / 2, weights / 2], dim=1) if binary else weights), solved


def _gradient_of_zero(inputs: Tensor, y: Tensor, n_target: int) -> float:
    """Return the largest entry of the gradient of the mean cross-entropy where all weights are 0."""
    residual = 1 / n_target - one_hot(y, n_target).double()
    return max((inputs.T @ residual).abs().max().item() / len(y), torch.finfo(torch.float64).tiny)
