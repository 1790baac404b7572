"""GBC: how little do the classes overlap, each taken as a Gaussian in the leading principal components?"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from hf_zoosel.metrics._blocks import blocks, class_sums, gram_of_columns, gram_of_rows, mean_row
from hf_zoosel.metrics._checks import check_features, check_labels

Covariance = Literal["spherical", "diagonal"]


def gbc(
    features: Tensor,
    labels: Tensor,
    *,
    covariance: Covariance = "spherical",
    n_components: int = 64,
    variance_floor: float = 1e-4,
) -> float:
    r"""Gaussian Bhattacharyya coefficient: less the summed overlap of all ordered pairs of classes.

    Each class is a Gaussian of its mean m and variances v (divisor n_c) in the principal components, and

        score = - sum_{i != j} exp(-D_ij)
        D_ij  = 1/8 sum_p (m_ip - m_jp)^2 / u_p + 1/2 sum_p ln(u_p / sqrt(v_ip v_jp)),    u = (v_i + v_j) / 2

    Args:
        features: Penultimate features of the target samples, shape ``(n_samples, n_features)``, any float type; sums
            are in float64.
        labels: Target class ids, shape ``(n_samples,)``, any integers.
        covariance: ``"spherical"`` for one variance a class, the mean of its variances; ``"diagonal"`` for one a
            component. Components of equal variance can be turned at will, which ``"diagonal"`` depends on.
        n_components: Leading principal components kept, at most; there are ``min(n_samples, n_features)``.
        variance_floor: Least variance of a class in a component, in units of the mean variance of the kept
            components over all samples, so that the scale of features is immaterial.

    Returns:
        Score in [-C (C - 1), 0] for C classes; higher is better. It falls with the number of classes and reaches 0 to
        rounding where all lie far apart: compare models on one sample of one target only. Features that are the same
        for all samples score -C (C - 1).

    Raises:
        ValueError: If shapes disagree, features are not finite, fewer than two classes are present, ``covariance`` is
            unknown, or ``n_components`` or ``variance_floor`` is not positive.
        TypeError: If ``features`` are not floats or ``labels`` not integers.

    Reference:
        Pandy et al., "Transferability Estimation using Bhattacharyya Class Separability", CVPR 2022,
        https://arxiv.org/abs/2111.12780. The authors' code floors variances at 1e-4 in squared units of the features,
        the same as here for components of mean variance 1, and counts the logarithm of ``"spherical"`` classes once
        instead of once a component, which is not the distance of spherical Gaussians.

    Example:
        >>> import torch
        >>> features = torch.tensor([[0.0], [2.0], [3.0], [5.0]])
        >>> round(gbc(features, torch.tensor([3, 3, 7, 7])), 4)  # -2 exp(-9 / 8)
        -0.6493
    """
    gaussians = _gaussians(features, labels, covariance, n_components, variance_floor)
    return -2 * sum(overlap.sum().item() for *_, overlap in _pairs(gaussians))


def gbc_influence(
    features: Tensor,
    labels: Tensor,
    *,
    covariance: Covariance = "spherical",
    n_components: int = 64,
    variance_floor: float = 1e-4,
) -> tuple[float, Tensor]:
    """Return ``gbc`` and each sample's influence on it, ``(n,)`` float64, which sums to zero over each class.

    The derivative in the weight of the sample in the mean and the variances of its class; principal components and
    floor are held, as nuisances.
    """
    fitted = _gaussians(features, labels, covariance, n_components, variance_floor)
    score, to_mean, to_variance = 0.0, torch.zeros_like(fitted.means), torch.zeros_like(fitted.means)
    for i, delta, middle, overlap in _pairs(fitted):
        score -= 2 * overlap.sum().item()
        pull = overlap[:, None] * delta / (2 * middle)  # (j, p)  d score / d m_i = 2 exp(-D) dD / dm_i
        to_mean[i] += pull.sum(dim=0)
        to_mean[i + 1 :] -= pull
        shared = 1 / middle - delta.square() / (4 * middle.square())  # (j, p)  4 dD / dv = shared - 1 / v
        to_variance[i] += (overlap[:, None] * (shared - 1 / fitted.variances[i])).sum(dim=0) / 2
        to_variance[i + 1 :] += overlap[:, None] * (shared - 1 / fitted.variances[i + 1 :]) / 2
    if covariance == "spherical":
        to_variance = to_variance.mean(dim=1, keepdim=True).expand_as(to_variance)
    to_variance = to_variance * (fitted.variances_unfloored > variance_floor)

    y, counts = fitted.labels, fitted.labels.bincount()
    offset = fitted.points - fitted.means[y]  # (n, p)
    moments = offset * to_mean[y] + (offset.square() - fitted.variances_unfloored[y]) * to_variance[y]
    return score, moments.sum(dim=1) * len(y) / counts[y]


@dataclass(frozen=True)
class _Gaussians:
    """The classes in principal components scaled to a mean variance of 1."""

    labels: Tensor  # (n,)
    points: Tensor  # (n, p)
    means: Tensor  # (k, p)
    variances_unfloored: Tensor  # (k, p)
    variances: Tensor  # (k, p)  as the distance takes them


def _gaussians(
    features: Tensor, labels: Tensor, covariance: Covariance, n_components: int, variance_floor: float
) -> _Gaussians:
    if covariance not in get_args(Covariance):
        raise ValueError(f"`covariance` must be one of {list(get_args(Covariance))}, got {covariance!r}.")
    if n_components < 1:
        raise ValueError(f"`n_components` must be at least 1, got {n_components}. The paper takes 64.")
    if not variance_floor > 0:
        raise ValueError(f"`variance_floor` must be positive, got {variance_floor}. The authors take 1e-4.")
    x, y = check_features(features), check_labels(labels, features)
    points, counts = _principal_components(x, min(n_components, *x.shape)), y.bincount()[:, None]
    means = class_sums(points, y) / counts
    unfloored = class_sums((points - means[y]).square(), y) / counts
    variances = unfloored.clamp_min(variance_floor)
    if covariance == "spherical":
        variances = variances.mean(dim=1, keepdim=True).expand_as(variances)
    return _Gaussians(y, points, means, unfloored, variances)


def _principal_components(x: Tensor, p: int) -> Tensor:
    """Return the scores on the p leading components ``(n, p)``, scaled to a mean variance of 1 unless all are 0."""
    centre, is_wide = mean_row(x), x.shape[0] <= x.shape[1]
    values, vectors = _leading(gram_of_rows(x, centre) if is_wide else gram_of_columns(x, centre), p)
    if is_wide:
        points = vectors * values.sqrt()
    else:
        points = torch.empty(len(x), p, dtype=torch.float64, device=x.device)
        for rows, block in blocks(x, centre):
            points[rows] = block @ (vectors * (values > 0))
    return points / (points.square().mean().sqrt() if points.any() else 1)


def _leading(gram: Tensor, p: int) -> tuple[Tensor, Tensor]:
    """Return the p largest eigenvalues (p,), zero where they are rounding, and their vectors (., p)."""
    from scipy.linalg import eigh  # finds a few vectors in a quarter of the time that torch takes for all

    size = len(gram)
    values, vectors = (
        torch.from_numpy(part).to(gram.device)
        for part in eigh(gram.cpu().numpy(), subset_by_index=(size - p, size - 1), check_finite=False)
    )
    return values * (values > size * torch.finfo(torch.float64).eps * values[-1]), vectors


def _pairs(fitted: _Gaussians) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """Yield ``(i, m_i - m_j (j, p), u (j, p), exp(-D_ij) (j,))`` for all classes j > i."""
    means, variances, logs = fitted.means, fitted.variances, fitted.variances.log().sum(dim=1)
    for i in range(len(means) - 1):
        delta, middle = means[i] - means[i + 1 :], (variances[i] + variances[i + 1 :]) / 2
        distance = (delta.square() / middle).sum(dim=1) / 8
        distance += middle.log().sum(dim=1) / 2 - (logs[i] + logs[i + 1 :]) / 4
        yield i, delta, middle, (-distance).exp()
