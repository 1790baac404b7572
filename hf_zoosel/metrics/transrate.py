"""TransRate: how many more nats the features cost to code without their labels than with them."""

from collections.abc import Iterator

import torch
from torch import Tensor

from hf_zoosel.metrics._blocks import blocks, gram_of_columns, gram_of_rows, mean_row, per_row
from hf_zoosel.metrics._checks import check_features, check_labels

_LEAST_EPS = 1e-10  # of the mean squared norm: below it the 1 in the determinant drowns in rounding


def transrate(features: Tensor, labels: Tensor, *, eps: float = 1e-4, unit_trace: bool = True) -> float:
    r"""Coding rate of the features less that of the classes: an estimate of their mutual information.

    With Z the centred features and Z_c the n_c rows of class c (centred by the mean of all, not by their own),

        R(Z) = 1/2 ln det(I + Z^T Z / (n eps)),    R(Z | Y) = sum_c n_c / n R(Z_c),    score = R(Z) - R(Z | Y)

    Each determinant is taken on the smaller side, d x d or rows x rows, which are equal.

    Args:
        features: Penultimate features of the target samples, shape ``(n_samples, n_features)``, any float type; sums
            are in float64.
        labels: Target class ids, shape ``(n_samples,)``, any integers.
        eps: Squared precision of the code, in units of the mean squared norm of the rows of Z if ``unit_trace``,
            else in squared units of the features. Directions of less variance than this hardly count.
        unit_trace: Divide Z by the root of its mean squared norm, so that the trace of its covariance is 1 and the
            scale of features is immaterial. False takes Z as it is, as the formula in the paper does: models whose
            features are merely larger then score higher.

    Returns:
        Score in nats, at least 0; higher is better. Features that are the same for all samples score 0.

    Raises:
        ValueError: If shapes disagree, features are not finite, fewer than two classes are present, or ``eps`` is
            below 1e-10 of the mean squared norm.
        TypeError: If ``features`` are not floats or ``labels`` not integers.

    Reference:
        Huang et al., "Frustratingly Easy Transferability Estimation", ICML 2022, https://arxiv.org/abs/2106.09362.
        The weights n_c / n are the paper's; the code printed in it and its copies weight each class 1 / C, which is
        the same for classes of one size only. Unit trace is an option of the authors' repository.

    Example:
        >>> import torch
        >>> features = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
        >>> round(transrate(features, torch.tensor([3, 3, 7, 7])), 4)
        0.0526
    """
    x, y, centre, trace = _checked(features, labels, eps, unit_trace)
    if trace == 0:
        return 0.0
    scale = 1 / (eps * trace)
    conditional = sum(len(rows) / len(x) * _rate(_factor(rows, centre, scale)) for _, rows in _classes(x, y))
    return max(0.0, _rate(_factor(x, centre, scale)) - conditional)


def transrate_influence(
    features: Tensor, labels: Tensor, *, eps: float = 1e-4, unit_trace: bool = True
) -> tuple[float, Tensor]:
    """Return ``transrate`` and each sample's influence on it, ``(n,)`` float64, which sums to zero for a unit trace.

    The derivative in the weight of the sample in every covariance, in the mean of all and in the trace. With g the
    centred rows, s = 1 / (eps trace), A = I + s S and A_c the same of class c, e_i = g_i^T (A^-1 - A_y(i)^-1) g_i and
    p = sum_c A_c^-1 (sum of g over c), it is s/2 (e_i - |g_i|^2 mean(e) / trace) + s/n g_i . p.
    """
    x, y, centre, trace = _checked(features, labels, eps, unit_trace)
    if trace == 0:
        return 0.0, torch.zeros(len(x), dtype=torch.float64, device=x.device)
    scale = 1 / (eps * trace)
    factor = _factor(x, centre, scale)
    score, excess, pull = _rate(factor), _leverage(x, centre, factor, scale), torch.zeros_like(centre)
    for members, rows in _classes(x, y):
        factor = _factor(rows, centre, scale)
        score -= len(rows) / len(x) * _rate(factor)
        excess[members] -= _leverage(rows, centre, factor, scale)
        pull += _pull(rows, centre, factor)

    mean_excess = excess.mean() / trace if unit_trace else 0.0

    def one_row(rows: slice, block: Tensor) -> Tensor:
        direct = excess[rows] - block.square().sum(dim=1) * mean_excess
        return scale * (direct / 2 + block @ pull / len(x))

    return max(0.0, score), per_row(x, one_row, centre)


def _checked(features: Tensor, labels: Tensor, eps: float, unit_trace: bool) -> tuple[Tensor, Tensor, Tensor, float]:
    """Return features, renumbered labels, the mean row and what divides Z^T Z / n: its trace or 1; 0 if Z is zero."""
    x, y = check_features(features), check_labels(labels, features)
    centre = mean_row(x)
    trace = per_row(x, lambda _, block: block.square().sum(dim=1), centre).mean().item()
    least = _LEAST_EPS * (1 if unit_trace else trace)
    if not eps > 0 or eps < least:
        raise ValueError(
            f"`eps` must be at least {max(least, 0):.3g}, got {eps}. Use the default 1e-4 with unit_trace=True."
        )
    return x, y, centre, trace if unit_trace or trace == 0 else 1.0


def _classes(x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield ``(indices, rows)`` of each class."""
    members = y.argsort(stable=True).split(y.bincount().tolist())
    for indices in members:
        yield indices, x[indices]


def _factor(rows: Tensor, centre: Tensor, scale: float) -> Tensor:
    """Return the Cholesky factor of I + scale / n Z^T Z, or of I + scale / n Z Z^T where there are no more rows."""
    n, d = rows.shape
    gram = gram_of_rows(rows, centre) if n <= d else gram_of_columns(rows, centre)
    gram.mul_(scale / n).diagonal().add_(1)
    return torch.linalg.cholesky(gram)


def _rate(factor: Tensor) -> float:
    """Return 1/2 ln det from the Cholesky factor."""
    return factor.diagonal().log().sum().item()


def _leverage(rows: Tensor, centre: Tensor, factor: Tensor, scale: float) -> Tensor:
    """Return g_i^T (I + scale / n Z^T Z)^-1 g_i, shape (n,)."""
    n, d = rows.shape
    if n <= d:  # the diagonal of K (I + sK)^-1 = (I - (I + sK)^-1) / s
        return (1 - torch.cholesky_inverse(factor).diagonal()) * (n / scale)
    return per_row(
        rows, lambda _, block: torch.linalg.solve_triangular(factor, block.T, upper=False).square().sum(dim=0), centre
    )


def _pull(rows: Tensor, centre: Tensor, factor: Tensor) -> Tensor:
    """Return (I + scale / n Z^T Z)^-1 Z^T 1, shape (d,)."""
    n, d = rows.shape
    if n > d:
        total = torch.zeros_like(centre)
        for _, block in blocks(rows, centre):
            total += block.sum(dim=0)
        return torch.cholesky_solve(total[:, None], factor).squeeze(1)
    solved = torch.cholesky_solve(torch.ones(n, 1, dtype=factor.dtype, device=factor.device), factor).squeeze(1)
    pull = torch.zeros_like(centre)  # Z^T (I + scale / n Z Z^T)^-1 1
    for part, block in blocks(rows, centre):
        pull += solved[part] @ block
    return pull
