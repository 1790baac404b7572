"""Gaussian mixtures by EM from a k-means start: the posterior of each component."""

import math
import warnings

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

# scikit-learn's defaults, for both kinds of covariance
_STEPS = 100
_GAIN = 1e-3  # nats per sample: EM stops when a step gains less
_FLOOR = 1e-6  # added to each variance
_EMPTY = 10 * torch.finfo(torch.float64).eps  # added to each mass: a component may lose all its samples


def full_mixture(points: Tensor, count: int, seed: int) -> Tensor:
    """Return P(component | sample), shape (n, count), for components with a covariance matrix each."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a fit that is stopped early is used as it is
        mixture = GaussianMixture(count, covariance_type="full", random_state=seed).fit(points.cpu().numpy())
    return torch.from_numpy(mixture.predict_proba(points.cpu().numpy())).to(points.device)


def diagonal_mixture(points: Tensor, count: int, seed: int) -> Tensor:
    """Return P(component | sample), shape (n, count), for components with a variance in each direction.

    It equals scikit-learn's GaussianMixture step by step, with one exponential for each sample and component.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than components
        start = KMeans(count, n_init=1, random_state=np.random.RandomState(seed)).fit(points.cpu().numpy()).labels_
    posterior = one_hot(torch.from_numpy(start).long(), count).to(points)
    moments = torch.cat([points, points.square()], dim=1)  # (n, 2 r)
    before = -math.inf
    for _ in range(_STEPS):
        posterior, likelihood = _step(moments, posterior)
        if abs(likelihood - before) < _GAIN:
            break
        before = likelihood
    return _step(moments, posterior)[0]


def _step(moments: Tensor, posterior: Tensor) -> tuple[Tensor, float]:
    """Return the posteriors after an M and an E step, and the mean ln p(sample) there."""
    mass = posterior.sum(dim=0) + _EMPTY  # (v,)
    mean, square = (posterior.T @ moments / mass[:, None]).chunk(2, dim=1)  # (v, r)
    variance = square - mean.square() + _FLOOR
    constant = (mass / len(moments)).log() - 0.5 * ((2 * math.pi * variance).log() + mean.square() / variance).sum(
        dim=1
    )
    joint = torch.addmm(constant, moments, torch.cat([mean / variance, -0.5 / variance], dim=1).T)  # (n, v)

    peak = joint.amax(dim=1, keepdim=True)
    joint.sub_(peak).exp_()
    total = joint.sum(dim=1, keepdim=True)
    return joint.div_(total), (peak + total.log()).mean().item()
