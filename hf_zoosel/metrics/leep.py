"""LEEP: how well a model's own source-class predictions explain the target labels."""

import torch
from torch import Tensor

from hf_zoosel.metrics._blocks import blocks, class_sums, per_row
from hf_zoosel.metrics._checks import check_labels, check_probs


def leep(source_probs: Tensor, labels: Tensor) -> float:
    """Log expected empirical prediction of the target labels.

    The mean log-likelihood of ``labels`` under the classifier that draws a source
    class z from the model's head and then a label from the empirical P(y | z).
    A source class without any mass contributes nothing.

    Args:
        source_probs: Softmax output of the model's original head on the target
            samples, shape ``(n_samples, n_source_classes)``.
        labels: Target class ids, shape ``(n_samples,)``, any integers.

    Returns:
        Score in nats per sample, at most 0; higher is better.

    Raises:
        ValueError: If shapes disagree, rows are not probabilities, or fewer than
            two classes are present.
        TypeError: If ``source_probs`` are not floats or ``labels`` not integers.

    Reference:
        Nguyen et al., "LEEP: A New Measure to Evaluate Transferability of Learned
        Representations", ICML 2020, Eqs. 1-2. https://arxiv.org/abs/2002.12462

    Example:
        >>> import torch
        >>> probs = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.1, 0.9]])
        >>> round(leep(probs, torch.tensor([0, 0, 1, 1])), 4)
        -0.3426
    """
    theta = check_probs(source_probs, "source_probs")  # (n, z)
    y = check_labels(labels, theta)  # (n,)
    _, conditional = _source_to_target(theta, y)
    return _likelihood(theta, y, conditional).log().mean().item()  # Eq. 2


def leep_influence(source_probs: Tensor, labels: Tensor) -> tuple[float, Tensor]:
    """Return ``leep`` and each sample's influence on it, ``(n,)`` float64.

    A sample counts by its own log-likelihood and by what it teaches P(y | z): the exact
    derivative of the score with respect to the weight of the sample in both averages.
    """
    theta = check_probs(source_probs, "source_probs")
    y = check_labels(labels, theta)
    mass, conditional = _source_to_target(theta, y)
    likelihood = _likelihood(theta, y, conditional)

    demand = torch.zeros_like(conditional)  # (y, z)  d(sum of log-likelihoods) / d P(y | z)
    for rows, block in blocks(theta):
        demand.index_add_(0, y[rows], block / likelihood[rows, None])
    gain = (demand - (demand * conditional).sum(dim=0)) / mass  # (y, z)
    taught = per_row(theta, lambda rows, block: (block * gain[y[rows]]).sum(dim=1))
    return likelihood.log().mean().item(), likelihood.log() + taught


def _source_to_target(theta: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return n P(z), shape (z,), at least the smallest normal number, and P(y | z), shape (y, z)."""
    joint = class_sums(theta, y)  # (y, z)  n P(y, z), Eq. 1
    mass = joint.sum(dim=0).clamp_min(torch.finfo(torch.float64).tiny)
    return mass, joint / mass


def _likelihood(theta: Tensor, y: Tensor, conditional: Tensor) -> Tensor:
    """Return sum_z P(y_i | z) theta_iz, shape (n,)."""
    return per_row(theta, lambda rows, block: (block * conditional[y[rows]]).sum(dim=1))
