"""NLEEP: LEEP with a Gaussian mixture of the features in place of the source head."""

import warnings
from typing import Literal, get_args

import torch
from torch import Tensor

from hf_zoosel.metrics._blocks import blocks, gram_of_columns, gram_of_rows, mean_row
from hf_zoosel.metrics._checks import check_features, check_labels
from hf_zoosel.metrics._order import canonical_order
from hf_zoosel.metrics._tridiagonal import Tridiagonal
from hf_zoosel.metrics.leep import leep, leep_influence

Covariance = Literal["diag", "full"]

_DECIMALS = 6  # of components of variance 1: k-means++ meets exact ties, which the last bits of sums would decide


def nleep(
    features: Tensor,
    labels: Tensor,
    *,
    seed: int = 0,
    energy: float = 0.8,
    components_per_class: int = 5,
    covariance: Covariance = "diag",
) -> float:
    """LEEP of the posteriors of a Gaussian mixture fitted to the principal components of the features.

    The features are reduced to the fewest principal components with ``energy`` of their variance and
    divided by one number, so that their mean variance is 1 and their scale is immaterial, and rounded to six
    decimals, so that the last bits of the sums do not decide where k-means starts. A mixture of
    ``components_per_class`` times the number of classes is fitted by EM from a k-means start; there are never more
    than half as many components as samples, nor more than distinct samples. EM stops when a step gains less than
    1e-3 nats per sample or after 100 steps; each step raises the likelihood, so a fit that is stopped
    early is used as it is, without a warning.

    The samples are sorted by their features before anything is drawn, so shuffling them
    does not change the score.

    Args:
        features: Penultimate features of the target samples, shape ``(n_samples,
            n_features)``, any float type; sums are in float64.
        labels: Target class ids, shape ``(n_samples,)``, any integers.
        seed: Seed of the k-means start. EM finds one of many maxima: between seeds the score varies by some
            hundredths of a nat, so scores closer than that are not told apart.
        energy: Fraction of the variance to keep, in (0, 1].
        components_per_class: Mixture components for each target class, at least 1.
        covariance: Of a component: ``"diag"``; ``"full"`` as in the peers' code, which with fewer samples in a
            component than principal components is singular up to a floor of 1e-6 of the mean variance, so
            that posteriors stay at the k-means start, and costs up to a hundred times more.

    Returns:
        Score in nats per sample, at most 0; higher is better.

    Raises:
        ValueError: If shapes disagree, features are not finite or all rows are equal, fewer than two
            classes are present, or an option is out of its range.
        TypeError: If ``features`` are not floats or ``labels`` not integers.

    Reference:
        Li et al., "Ranking Neural Checkpoints", CVPR 2021, https://arxiv.org/abs/2011.11200
        (PCA with 80 % energy, five components per class). The diagonal covariance, the division to unit
        variance (scikit-learn's floor of 1e-6 is absolute), the rounding and the limits on the components are ours.

    Example:
        >>> import torch
        >>> features = torch.tensor([[0.0], [0.1], [0.2], [0.3], [9.0], [9.1], [9.2], [9.3]])
        >>> round(nleep(features, torch.tensor([0, 0, 0, 1, 1, 1, 1, 1]), components_per_class=1), 4)
        -0.2812
    """
    y = check_labels(labels, check_features(features))
    return leep(_posteriors(features, y, seed, (energy, components_per_class, covariance)), y)


def nleep_influence(
    features: Tensor,
    labels: Tensor,
    *,
    seed: int = 0,
    energy: float = 0.8,
    components_per_class: int = 5,
    covariance: Covariance = "diag",
) -> tuple[float, Tensor]:
    """Return ``nleep`` and each sample's influence on it, ``(n,)`` float64.

    That of LEEP on the posteriors: principal components and mixture, which never see a label, are held.
    """
    y = check_labels(labels, check_features(features))
    return leep_influence(_posteriors(features, y, seed, (energy, components_per_class, covariance)), y)


def _posteriors(features: Tensor, y: Tensor, seed: int, options: tuple[float, int, Covariance]) -> Tensor:
    """Return P(component | sample), shape (n, components), on the device of the features."""
    energy, per_class, covariance = options
    if not 0 < energy <= 1:
        raise ValueError(f"`energy` must be in (0, 1], got {energy}. It is the fraction of variance to keep.")
    if per_class < 1:
        raise ValueError(f"`components_per_class` must be at least 1, got {per_class}.")
    if covariance not in get_args(Covariance):
        raise ValueError(f"`covariance` must be one of {list(get_args(Covariance))}, got {covariance!r}.")
    x = features.detach()
    order = canonical_order(x)
    x = x[order]
    distinct = 1 + int((x[1:] != x[:-1]).any(dim=1).sum())
    count = min(per_class * (int(y.max()) + 1), max(1, len(x) // 2), distinct)

    posterior = torch.empty(len(x), count, dtype=torch.float64, device=x.device)
    posterior[order] = _mixture_posteriors(_principal(x, energy), count, covariance, seed)
    return posterior


def _mixture_posteriors(points: Tensor, count: int, covariance: Covariance, seed: int) -> Tensor:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    given = points.cpu().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a fit that is stopped early is used as it is
        mixture = GaussianMixture(count, covariance_type=covariance, random_state=seed).fit(given)
    return torch.from_numpy(mixture.predict_proba(given)).to(points.device)


def _principal(x: Tensor, energy: float) -> Tensor:
    """Return the leading principal components (n, r) with ``energy`` of the variance, at mean variance 1, rounded."""
    centre = mean_row(x)
    wide = len(x) <= x.shape[1]
    gram = gram_of_rows(x, centre) if wide else gram_of_columns(x, centre)
    if not gram.any():
        raise ValueError(
            "`features` must differ between samples, got the same row for all, so there are no principal components. "
            "Check that the images and the weights are what you expect."
        )
    values, vectors = _leading(gram, energy)
    points = vectors * values.sqrt() if wide else torch.cat([block @ vectors for _, block in blocks(x, centre)])
    return points.div_((values.sum() / points.numel()).sqrt()).round_(decimals=_DECIMALS)


def _leading(gram: Tensor, energy: float) -> tuple[Tensor, Tensor]:
    """Return the fewest eigenvalues (r,) of a sum of at least ``energy`` times all, and their vectors (side, r)."""
    decomposed = Tridiagonal.of(gram)
    values = decomposed.values.flip(0).clamp_min(0)
    cumulated = values.cumsum(dim=0)
    r = 1 + int((cumulated < energy * cumulated[-1] * (1 - 1e-12)).sum())
    return values[:r].to(gram.device), decomposed.leading(r).flip(1).to(gram.device)
