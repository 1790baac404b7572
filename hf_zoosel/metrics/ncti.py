"""NCTI: how near are the features to the collapse that fine-tuning ends in? Relative to the other candidates."""

import math

import torch
from torch import Tensor

from hf_zoosel.metrics._blocks import blocks, class_sums, gram_of_columns, gram_of_rows, mean_row
from hf_zoosel.metrics._checks import check_features, check_labels
from hf_zoosel.metrics._min_max import min_max

N_COMPONENTS = 64
_SHRINKAGE_COMPONENTS = 32  # whose variances decide the shrinkage
_LEAST_SHRINKAGE = 1e-10
_LEAST_WITHIN = 1e-12  # of the total scatter: less within-class scatter counts as that much
_RANK = 1e-10  # of the largest singular value: components and Fisher directions below it are rounding
_SIGNS = (1.0, 1.0, -1.0)


def ncti_terms(features: Tensor, labels: Tensor, *, n_components: int = N_COMPONENTS) -> tuple[float, float, float]:
    r"""The three terms of the neural collapse index of one candidate, to be combined by ``ncti_over_zoo``.

    On the leading principal components z, with m_c and q_c the mean and frequency of class c, S_W the within-class
    covariance (over n) and v its mean eigenvalue, a shrunk discriminant analysis:

        shrinkage = max(exp(-(sum of the variances of the first 32 components)), 1e-10)
        A = ((1 - shrinkage) S_W + shrinkage v I)^-1
        P = softmax_c(z^T A m_c - 1/2 m_c^T A m_c + log q_c)                      (n, C)

    The terms are the nuclear norm of the centred samples in the C - 1 Fisher directions (columns u with u^T A^-1 u =
    1), the mean of P at each sample's class, and log sum_c of the nuclear norm of the rows of P of class c. Under
    collapse the first two are large; the third is small, as the rows of a class are alike.

    Args:
        features: Penultimate features of the target samples, shape ``(n_samples, n_features)``, any float type;
            sums are in float64. The shrinkage depends on their scale, as in the paper.
        labels: Target class ids, shape ``(n_samples,)``, any integers.
        n_components: Principal components kept, at most; no more than leave the within-class covariance regular,
            at most samples less classes. Where every class is a point, all are kept.

    Returns:
        The geometry term, at least 0, higher is better; the mean posterior in [0, 1], higher is better; and the
        variability term, lower is better. None is the score: NCTI compares candidates, and the score of one depends
        on the others. All are judged on the samples that were fitted: with fewer than some ten times as many samples
        as components the second nears 1 for every model. The third is of no use where every sample is its own class.

    Raises:
        ValueError: If shapes disagree, features are not finite, fewer than two classes are present, or
            ``n_components`` is not positive.
        TypeError: If ``features`` are not floats or ``labels`` not integers.

    Reference:
        Wang et al., "How Far Pre-trained Models Are from Neural Collapse on the Target Dataset Informs their
        Transferability", ICCV 2023, pp. 5549-5558, as in the authors' code. Unlike that code: the principal
        components are exact and need no seed; one formula holds at the floor of the shrinkage too, where theirs
        changes to a solver whose covariance is over n - C; the Fisher directions are those of the class means, with
        nothing added to them by the shrinkage; and the number of components is limited as said above.

    Example:
        >>> import torch
        >>> features = torch.tensor([[0.0, 1.0], [0.2, 0.4], [0.7, 1.3], [0.5, 0.8], [1.1, 0.1], [1.2, 0.9]])
        >>> [round(term, 4) for term in ncti_terms(features, torch.tensor([0, 0, 0, 1, 1, 1]))]
        [3.4847, 0.8006, 1.3386]
    """
    if n_components < 1:
        raise ValueError(f"`n_components` must be at least 1, got {n_components}.")
    x, y = check_features(features), check_labels(labels, features)
    counts = y.bincount().double()
    z = _principal(x, min(n_components, max(1, len(y) - len(counts))))  # (n, q)
    white = _whiten(_varying_within(z, y), y)
    means = class_sums(white, y) / counts[:, None]  # (k, q)
    _, sizes, directions = torch.linalg.svd(counts.sqrt()[:, None] * means, full_matrices=False)
    fisher = directions[(sizes > _RANK * sizes[0])].T  # (q, r)  r <= C - 1
    white, means = white @ fisher, means @ fisher

    posteriors = (white @ means.T - means.square().sum(dim=1) / 2 + counts.log()).softmax(dim=1)  # (n, k)
    own = posteriors.gather(1, y[:, None]).mean().item()
    variability = sum(_nuclear_norm(posteriors[y == c]) for c in range(len(counts)))
    return _nuclear_norm(white), own, math.log(variability)


def ncti_over_zoo(terms: Tensor) -> Tensor:
    """Combine the terms of all candidates: geometry plus posterior less variability.

    Each term is first scaled to [0, 1] over the candidates, so every score depends on which others there are: adding
    one can reverse the order of two. A term that is equal for all, as with a single candidate, adds 0 to each.

    Args:
        terms: What ``ncti_terms`` returns for each of m candidates, shape ``(m, 3)``.

    Returns:
        Scores in [-1, 2], shape ``(m,)``, float64; higher is better.

    Raises:
        ValueError: If ``terms`` has another shape or is not finite.
        TypeError: If ``terms`` are not floats.

    Reference:
        Wang et al., ICCV 2023: see ``ncti_terms``.

    Example:
        >>> import torch
        >>> ncti_over_zoo(torch.tensor([[10.0, 0.5, 3.0], [30.0, 0.9, 2.0], [20.0, 0.7, 2.5]])).tolist()
        [-1.0, 2.0, 0.5]
    """
    return min_max(terms, 3) @ torch.tensor(_SIGNS, dtype=torch.float64, device=terms.device)


def _principal(x: Tensor, q: int) -> Tensor:
    """Return the samples in their q leading principal components or fewer, at least one; shape ``(n, q)``."""
    centre = mean_row(x)
    if len(x) <= x.shape[1]:
        values, vectors = _leading(gram_of_rows(x, centre), q)
        return vectors * values.sqrt()
    _, vectors = _leading(gram_of_columns(x, centre), q)
    scores = torch.empty(len(x), vectors.shape[1], dtype=torch.float64, device=x.device)
    for rows, block in blocks(x, centre):
        scores[rows] = block @ vectors
    return scores


def _leading(gram: Tensor, q: int) -> tuple[Tensor, Tensor]:
    """Return the q largest eigenvalues that are not rounding, in descending order, and their vectors."""
    from scipy.linalg import eigh

    size = len(gram)
    found = eigh(gram.cpu().numpy(), subset_by_index=[max(0, size - q), size - 1])
    values, vectors = (torch.from_numpy(part).to(gram.device).flip(-1) for part in found)
    kept = max(1, int((values > _RANK * values[0]).sum()))
    return values[:kept].clamp_min(0), vectors[:, :kept]


def _within(z: Tensor, y: Tensor) -> Tensor:
    residuals = z - (class_sums(z, y) / y.bincount()[:, None])[y]
    return residuals.T @ residuals / len(z)


def _varying_within(z: Tensor, y: Tensor) -> Tensor:
    """Return as many leading components as the within-class covariance has dimensions; all if it has none."""
    values = torch.linalg.eigvalsh(_within(z, y))
    rank = int((values > _RANK * values[-1]).sum())
    if values[-1] <= _LEAST_WITHIN * z.square().sum() / len(z) or rank == z.shape[1]:
        return z
    return _varying_within(z[:, :rank], y)


def _whiten(z: Tensor, y: Tensor) -> Tensor:
    """Return L^-1 z, with L L^T the shrunk within-class covariance, shape ``(n, q)``."""
    n, q = z.shape
    covariance = _within(z, y)
    total, within = z.square().sum().item() / n, covariance.trace().item()
    variance = max(within, _LEAST_WITHIN * total) / q or 1.0  # samples all equal: any will do

    spread = z[:, :_SHRINKAGE_COMPONENTS].square().sum().item() / (n - 1)
    shrinkage = max(math.exp(-spread), _LEAST_SHRINKAGE)
    covariance *= 1 - shrinkage
    covariance.diagonal().add_(shrinkage * variance)
    factor = torch.linalg.cholesky(covariance)
    return torch.linalg.solve_triangular(factor, z.T, upper=False).T


def _nuclear_norm(matrix: Tensor) -> float:
    return torch.linalg.svdvals(matrix).sum().item()
