"""The second stage: the classifier alone, fitted anew on the target's features.

Source rows pull the features and the classifier; the classifier can be freed of them without training again.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hf_zoosel.training.evaluate import Outputs

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


@dataclass(frozen=True)
class LinearHead:
    """A linear classifier: ``weight (n_classes, n_features)``, ``bias (n_classes,)`` and its inverse strength."""

    weight: Tensor
    bias: Tensor
    strength: float


def refit_head(train: Outputs, validation: Outputs | None, n_classes: int, *, has_bias: bool = True) -> LinearHead:
    """Logistic regression on the features of the target's training rows.

    Features are standardised for the fit and the scales folded into the weights. The inverse strength of the penalty
    is the one with the best accuracy on the validation rows, the strongest penalty among equals; 0.01 where there
    are none.

    Args:
        train: Features and labels to fit.
        validation: Features and labels to choose the strength on.
        n_classes: Classes of the target; a class without a training row keeps a score below all others.
        has_bias: Whether the classifier has one. Without, features are scaled but not shifted, and a class without a
            training row scores 0.

    Reference:
        Liu et al., "Few-Shot Recognition via Stage-Wise Retrieval-Augmented Finetuning", CVPR 2025,
        https://arxiv.org/abs/2406.11148: training on the mix, then the classifier on the target alone.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, labels = train.features.double().numpy(), train.labels.numpy()
    best: tuple[float, float, object] | None = None
    for strength in STRENGTHS if validation is not None else (1e-2,):
        scaler = StandardScaler(with_mean=has_bias)
        model = make_pipeline(scaler, LogisticRegression(C=strength, max_iter=2000, fit_intercept=has_bias))
        model.fit(features, labels)
        accuracy = 0.0
        if validation is not None:
            accuracy = float(model.score(validation.features.double().numpy(), validation.labels.numpy()))
        if best is None or accuracy > best[0]:
            best = accuracy, strength, model
    assert best is not None
    return _folded(best[2], best[1], n_classes, has_bias=has_bias)


def _folded(model: object, strength: float, n_classes: int, *, has_bias: bool) -> LinearHead:
    """The scaler's shift and scale inside the weights, and a row for every class."""
    scaler, regression = (step for _, step in model.steps)  # type: ignore[attr-defined]
    weight, bias = regression.coef_, regression.intercept_
    if len(regression.classes_) == 2:  # one row of differences
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / scaler.scale_
    if has_bias:
        bias = bias - weight @ scaler.mean_
    full_weight = np.zeros((n_classes, weight.shape[1]))
    full_bias = np.full(n_classes, bias.min() - 1e3 if has_bias else 0.0)
    full_weight[regression.classes_], full_bias[regression.classes_] = weight, bias
    return LinearHead(torch.from_numpy(full_weight).float(), torch.from_numpy(full_bias).float(), strength)
