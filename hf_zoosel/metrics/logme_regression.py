"""LogME of a regression task: the evidence of a Bayesian linear model of real targets on the features."""

import torch
from torch import Tensor

from hf_zoosel.metrics._checks import check_features
from hf_zoosel.metrics._evidence import fit_evidence, log_densities_of_one_left_out
from hf_zoosel.metrics._spectrum import projected_spectrum, spectrum


def logme_regression(features: Tensor, targets: Tensor) -> float:
    r"""Log of the maximum evidence: how probable are the targets under a linear model of the features?

    What ``logme`` computes for the one-hot columns of labels, for the columns y of real targets: the log density of
    y ~ N(0, I / beta + F F^T / alpha), maximised over alpha and beta, per sample and averaged over columns.

    Nothing is centred, as in the paper, so a model must explain the mean of the targets too: subtract it from the
    targets to compare models on their variation alone. Multiplying a column by c takes ln c from its evidence
    whatever the features, so the unit of the targets never changes the order of models.

    Args:
        features: Penultimate features of the target samples, shape ``(n_samples, n_features)``, any float type;
            sums are in float64.
        targets: What is to be predicted, shape ``(n_samples,)`` or ``(n_samples, n_targets)``, any floats.

    Returns:
        Score in nats per sample; higher is better. Compare models on one sample of one target only. Residuals count
        as at least 1e-12 of a column's squared norm where there are fewer directions than samples.

    Raises:
        ValueError: If shapes disagree, features or targets are not finite, there are no samples, or a column of the
            targets is zero throughout.
        TypeError: If ``features`` or ``targets`` are not floats.

    Reference:
        You et al., "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", ICML 2021, Algorithm 1
        and its use for regression, https://arxiv.org/abs/2102.11005. The maximum is found directly and no epsilon
        enters, as in ``logme``.

    Example:
        >>> import torch
        >>> features = torch.tensor([[1.0, 0.1], [0.9, 0.0], [0.1, 1.0], [0.0, 0.8], [0.2, 1.1]])
        >>> round(logme_regression(features, torch.tensor([2.0, 1.9, 0.1, 0.0, 0.5])), 4)
        -0.2906
    """
    x, y = _checked(features, targets)
    values, projected = projected_spectrum(x, y)
    return fit_evidence(values, projected, y.square().sum(dim=0), len(y)).evidence.mean().item() / len(y)


def logme_regression_influence(features: Tensor, targets: Tensor) -> tuple[float, Tensor]:
    """Return ``logme_regression`` and each sample's influence on it, ``(n,)`` float64, as for ``logme``."""
    x, y = _checked(features, targets)
    decomposed = spectrum(x)
    fit = fit_evidence(decomposed.values, decomposed.project_columns(y), y.square().sum(dim=0), len(y))
    return fit.evidence.mean().item() / len(y), log_densities_of_one_left_out(decomposed, fit, lambda rows: y[rows])


def _checked(features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return features as they are and targets as ``(n, t)`` in float64 on their device."""
    x = check_features(features)
    if not isinstance(targets, Tensor) or not targets.is_floating_point():
        kind = targets.dtype if isinstance(targets, Tensor) else type(targets).__name__
        raise TypeError(f"`targets` must be a floating-point torch tensor, got {kind}. For classes take `logme`.")
    if len(x) == 0 or targets.ndim not in (1, 2) or len(targets) != len(x):
        raise ValueError(
            f"`targets` must have shape ({len(x)},) or ({len(x)}, n_targets), one row per row of `features` and at "
            f"least one, got {tuple(targets.shape)}."
        )
    y = check_features(targets.reshape(len(x), -1), "targets").to(x.device, torch.float64)
    if not y.any(dim=0).all():
        raise ValueError(
            f"`targets` must have no column of zeros only, got {int((~y.any(dim=0)).sum())}: their evidence has no "
            "bound. Drop them."
        )
    return x, y
