"""PACTran on source probabilities: the evidence of the labels when P(label | source class) is unknown."""

import math

import torch
from torch import Tensor

from hf_zoosel.metrics._blocks import blocks
from hf_zoosel.metrics._checks import check_labels, check_probs


def pactran_dirichlet(source_probs: Tensor, labels: Tensor, *, alpha: float = 1.0, steps: int = 10) -> float:
    """PACTran-Dirichlet: a lower bound on the log evidence of LEEP's classifier, per sample.

    LEEP takes the empirical P(y | z) of a source class z; here each P(. | z) has a Dirichlet prior, ``alpha`` times
    the frequencies of the labels. The evidence of the labels given the source probabilities is bounded by
    coordinate ascent on Dirichlet factors and the responsibilities q(z) of each sample, from
    q = ``source_probs``. Every step raises the bound.

    Args:
        source_probs: Softmax output of the model's original head on the target
            samples, shape ``(n_samples, n_source_classes)``.
        labels: Target class ids, shape ``(n_samples,)``, any integers.
        alpha: Total mass of each prior in samples, positive.
        steps: Steps of the ascent, at least 1.

    Returns:
        Bound in nats per sample, negative; higher is better.

    Raises:
        ValueError: If shapes disagree, rows are not probabilities, fewer than two classes
            are present, or an option is out of its range.
        TypeError: If ``source_probs`` are not floats or ``labels`` not integers.

    Reference:
        Ding et al., "PACTran", ECCV 2022, https://arxiv.org/abs/2203.05126, PACTran-Dirichlet as in the authors'
        code, but for: the sign; nats per sample, where the code divides by the number of classes as well; no 1e-10
        in logarithms; the bound is taken at the factors of the last responsibilities, not of those before.

    Example:
        >>> import torch
        >>> probs = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.1, 0.9]])
        >>> round(pactran_dirichlet(probs, torch.tensor([0, 0, 1, 1])), 4)
        -0.671
    """
    theta, y, prior = _checked(source_probs, labels, alpha, steps)
    counts, _ = _responsibilities(theta, y, None)
    for _ in range(steps):
        posterior = prior + counts  # (k, z)
        expected = torch.digamma(posterior) - torch.digamma(posterior.sum(dim=0))  # E ln P(y | z)
        counts, log_norm = _responsibilities(theta, y, expected)
    gain = _log_beta(prior + counts) - _log_beta(prior)  # (z,)
    return (gain.sum() - (counts * expected).sum() + log_norm).item() / len(y)


def pactran_gamma(source_probs: Tensor, labels: Tensor, *, alpha: float = 1.0, steps: int = 10) -> float:
    """PACTran-Gamma: as ``pactran_dirichlet``, with weights of P(y | z) that need not sum to one over y.

    The classifier is P(y | x) = sum_z s_z v_yz / sum_yz s_z v_yz with a Gamma prior of shape ``alpha`` times the
    label's frequency and rate 1 on each v. The rates stay at 1 and the logarithm of the normaliser
    is bounded by its tangent at the mean.

    Args:
        source_probs: Softmax output of the model's original head on the target
            samples, shape ``(n_samples, n_source_classes)``.
        labels: Target class ids, shape ``(n_samples,)``, any integers.
        alpha: Sum of the prior shapes of a source class, positive.
        steps: Steps of the ascent, at least 1.

    Returns:
        Bound in nats per sample, negative; higher is better.

    Raises:
        ValueError: If shapes disagree, rows are not probabilities, fewer than two classes
            are present, or an option is out of its range.
        TypeError: If ``source_probs`` are not floats or ``labels`` not integers.

    Reference:
        Ding et al., "PACTran", ECCV 2022, https://arxiv.org/abs/2203.05126, PACTran-Gamma as in the authors'
        code, but for what ``pactran_dirichlet`` lists and its constants 1 - 1 / n_classes, which the bound lacks.

    Example:
        >>> import torch
        >>> probs = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.1, 0.9]])
        >>> round(pactran_gamma(probs, torch.tensor([0, 0, 1, 1])), 4)
        -1.4233
    """
    theta, y, prior = _checked(source_probs, labels, alpha, steps)
    counts, _ = _responsibilities(theta, y, None)
    for _ in range(steps):
        expected = torch.digamma(prior + counts)  # (k, z)  E ln v_yz
        counts, log_norm = _responsibilities(theta, y, expected)
    shape = prior + counts
    total = shape.sum(dim=0)  # (z,)
    normaliser = sum(float((block @ total).log().sum()) for _, block in blocks(theta))
    gain = (torch.lgamma(shape) - torch.lgamma(prior)).sum() - (counts * expected).sum()
    return (gain.item() + log_norm - normaliser) / len(y)


def _checked(source_probs: Tensor, labels: Tensor, alpha: float, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return probabilities (n, z), labels (n,) and the prior's parameters (k, 1)."""
    theta = check_probs(source_probs, "source_probs")
    y = check_labels(labels, theta)
    if not (alpha > 0 and math.isfinite(alpha)):
        raise ValueError(f"`alpha` must be positive, got {alpha}. It is the mass of the prior in samples.")
    if steps < 1:
        raise ValueError(f"`steps` must be at least 1, got {steps}.")
    return theta, y, alpha * y.bincount().double()[:, None] / len(y)


def _responsibilities(theta: Tensor, y: Tensor, expected: Tensor | None) -> tuple[Tensor, float]:
    """Return sum of q_i over each class, (k, z), and sum_i ln sum_z s_iz exp(E_yz), for q_iz ~ s_iz exp(E_yz)."""
    counts = torch.zeros(int(y.max()) + 1, theta.shape[1], dtype=torch.float64, device=theta.device)
    peak = torch.zeros_like(counts[:, :1]) if expected is None else expected.amax(dim=1, keepdim=True)
    weights = torch.ones_like(counts) if expected is None else (expected - peak).exp()
    log_norm = 0.0
    for rows, block in blocks(theta):
        joint = block * weights[y[rows]]
        norm = joint.sum(dim=1, keepdim=True)
        counts.index_add_(0, y[rows], joint / norm)
        log_norm += (norm.log() + peak[y[rows]]).sum().item()
    return counts, log_norm


def _log_beta(parameters: Tensor) -> Tensor:
    """Return ln of the multivariate Beta function of each column."""
    return torch.lgamma(parameters).sum(dim=0) - torch.lgamma(parameters.sum(dim=0))
