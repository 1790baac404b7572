"""H-score: how much of the features' covariance lies between the classes, with a shrunk covariance."""

import math
import warnings
from typing import Literal, get_args

import torch
from torch import Tensor

from hf_zoosel.metrics._blocks import class_sums, gram_of_columns, gram_of_rows, mean_row, per_row
from hf_zoosel.metrics._checks import check_features, check_labels

Shrinkage = Literal["ledoit-wolf", "none"]

_ISOTROPIC = 1e-13  # of the squared norm of the covariance: what rounding leaves of its distance from a multiple of I
_SAFE_RIDGE = 1e-12  # of the trace: above it the Cholesky factor exists whatever the rank


def h_score(features: Tensor, labels: Tensor, *, shrinkage: Shrinkage = "ledoit-wolf") -> float:
    r"""H-score with a shrunk covariance: the share of variance between classes, summed over directions.

    With S the covariance of the features, B that of their class means and m = tr(S) / d,

        H_a = tr(((1 - a) S + a m I)^-1 (1 - a) B)

    where a is the coefficient of Ledoit and Wolf, the one that scikit-learn finds. Less the factors (1 - a) and n it
    is the fit of a ridge regression, tr(M (G^T G + r I)^-1 M^T), with G the centred features, M their class sums over
    sqrt(n_c) and r = a tr(G^T G) / (d (1 - a)): one Cholesky factor on the smaller side of G.

    Args:
        features: Penultimate features of the target samples, shape ``(n_samples, n_features)``, any float type; sums
            are in float64.
        labels: Target class ids, shape ``(n_samples,)``, any integers.
        shrinkage: ``"ledoit-wolf"``, or ``"none"`` for the plain H-score with the pseudo-inverse of S. That one
            warns when ``n_samples <= n_features + 1``: it is then C - 1 for C classes whatever the labels, up to
            duplicate samples, and ranks nothing.

    Returns:
        Score in [0, min(C - 1, n_features)]; higher is better. Features that are the same for all samples score 0,
        and so do features whose covariance is shrunk completely (a = 1).

    Raises:
        ValueError: If shapes disagree, features are not finite, fewer than two classes are present, or ``shrinkage``
            is unknown.
        TypeError: If ``features`` are not floats or ``labels`` not integers.

    Reference:
        Ibrahim et al., "Newer is not always better: Rethinking transferability metrics, their peculiarities,
        stability and performance", 2021, https://arxiv.org/abs/2110.06893; the plain score is that of Bao et al., "An
        Information-Theoretic Approach to Transferability in Task Transfer Learning", ICIP 2019. Shrinkage: Ledoit &
        Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004. Both covariances have
        the divisor n; the Transfer-Learning-Library divides B by n - 1 and S by n, which gives n / (n - 1) as much.

    Example:
        >>> import torch
        >>> features = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
        >>> round(h_score(features, torch.tensor([3, 3, 7, 7])), 4)
        0.6974
    """
    if shrinkage not in get_args(Shrinkage):
        raise ValueError(f"`shrinkage` must be one of {list(get_args(Shrinkage))}, got {shrinkage!r}.")
    x, y = check_features(features), check_labels(labels, features)
    n, d = x.shape
    if shrinkage == "none" and n <= d + 1:
        warnings.warn(
            f"h_score without shrinkage saturates at the number of classes less one: {n} samples of {d} features fit "
            'any labels. Use `shrinkage="ledoit-wolf"`.',
            stacklevel=2,
        )
    centre, roots = mean_row(x), y.bincount().double().sqrt()
    gram = gram_of_rows(x, centre) if n <= d else gram_of_columns(x, centre)
    ridge = 0.0 if shrinkage == "none" else _ridge(x, centre, gram)
    if n > d:
        sums = class_sums(x, y, centre).T / roots  # (d, k)  M^T
        return (sums * _solve(gram, sums, ridge)).sum().item()
    fitted = _solve(gram, class_sums(gram, y).T / roots, ridge)  # (n, k)  G (G^T G + r)^-1 M^T = (G G^T + r)^-1 G M^T
    return (fitted.gather(1, y[:, None]).squeeze(1) / roots[y]).sum().item()


def ledoit_wolf(norms: Tensor, gram: Tensor, d: int) -> float:
    """Return the coefficient a in [0, 1] from the squared norms ``(n,)`` of centred rows and either Gram of them.

    It equals scikit-learn's ``ledoit_wolf_shrinkage``, which builds the d x d products of squared features only to
    sum them: that sum is the sum of squared norms. Where S is a multiple of I to rounding, one feature above all, a
    has no effect on S and is 0, as there.
    """
    n, trace = len(norms), norms.sum().item()
    fourth, squared = norms.square().sum().item() / n, gram.square().sum().item() / n**2  # mean |g|^4, ||S||_F^2
    distance = squared - (trace / n) ** 2 / d  # ||S - m I||_F^2
    if distance <= _ISOTROPIC * squared:
        return 0.0
    return min(1.0, max(0.0, (fourth - squared) / n) / distance)


def _ridge(x: Tensor, centre: Tensor, gram: Tensor) -> float:
    """Return r, the ridge that shrinking G^T G amounts to: infinite where nothing of it is kept."""
    d = x.shape[1]
    norms = per_row(x, lambda _, block: block.square().sum(dim=1), centre)
    a = ledoit_wolf(norms, gram, d)
    return a * norms.sum().item() / d / (1 - a) if a < 1 else math.inf


def _solve(gram: Tensor, right: Tensor, ridge: float) -> Tensor:
    """Return ``(gram + ridge I)^-1 right``, with the pseudo-inverse where the ridge is too small to matter."""
    if ridge == math.inf:
        return torch.zeros_like(right)
    if ridge > _SAFE_RIDGE * gram.trace().item():
        gram.diagonal().add_(ridge)
        return torch.cholesky_solve(right, torch.linalg.cholesky(gram))
    values, vectors = torch.linalg.eigh(gram)
    significant = values > len(gram) * torch.finfo(torch.float64).eps * values[-1]
    values, vectors = values[significant], vectors[:, significant]
    return vectors @ ((vectors.T @ right) / (values + ridge)[:, None])
