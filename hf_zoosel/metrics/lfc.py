"""LFC: label-feature correlation, the linearised framework's score on features."""

import math

import torch
from torch import Tensor

from hf_zoosel.metrics._blocks import blocks, class_sums, gram_blocks, gram_of_columns, mean_row, per_row
from hf_zoosel.metrics._checks import check_features, check_labels


def lfc(features: Tensor, labels: Tensor) -> float:
    r"""Label-feature correlation: do samples of one class have similar features?

    The Pearson correlation, over all pairs of samples (i, j), of the feature kernel
    Theta_ij = f_i . f_j with the label kernel K_ij = +1 (same class) or -1.

    Neither n x n matrix is formed. With m the mean feature row, g_i = f_i - m,
    a_i = m . g_i and G_c the sum of g over class c, the kernel less its mean is
    Theta_ij - mu = a_i + a_j + g_i . g_j, whose parts are orthogonal over all pairs, so

        ||Theta - mu||^2            = ||G G^T||^2 + 2 n sum_i a_i^2
        (Theta - mu) . (K - mu_K)   = 2 sum_c (2 n_c m . G_c + ||G_c||^2)
        ||K - mu_K||^2              = n^2 (1 - mu_K^2)

    with no difference of large numbers. ||G G^T|| = ||G^T G|| is taken on the smaller
    side, in blocks: O(n d min(n, d)) time; k d numbers beside the features, and d^2 if n > d.

    Args:
        features: Penultimate features of the target samples, shape ``(n_samples,
            n_features)``, any float type; sums are in float64.
        labels: Target class ids, shape ``(n_samples,)``, any integers.

    Returns:
        Correlation in [-1, 1]; higher is better. It falls with the number of classes:
        compare models on one sample of one target only.

    Raises:
        ValueError: If shapes disagree, features are not finite or all rows are equal,
            or fewer than two classes are present.
        TypeError: If ``features`` are not floats or ``labels`` not integers.

    Reference:
        Deshpande et al., "A linearized framework and a new benchmark for model
        selection for fine-tuning", 2021, Eq. 8 with Theta_F of Eq. 6; the norms are
        Frobenius norms. https://arxiv.org/abs/2102.00084

    Example:
        >>> import torch
        >>> features = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
        >>> round(lfc(features, torch.tensor([3, 3, 7, 7])), 4)
        0.825
    """
    x, y = check_features(features), check_labels(labels, features)
    centre = mean_row(x)
    squares = _pair_norms(x, centre) if len(x) <= x.shape[1] else gram_of_columns(x, centre).square_()
    kernel_norm2 = squares.sum() + 2 * len(x) * _along(x, centre).square().sum()
    return _correlation(class_sums(x, y, centre), y.bincount(), centre, kernel_norm2.item())


def lfc_influence(features: Tensor, labels: Tensor) -> tuple[float, Tensor]:
    """Return ``lfc`` and each sample's influence on it, ``(n,)`` float64, which sums to zero.

    The derivative of the correlation over pairs weighted w_i w_j, at w = 1: with row sums
    over j of the three products in Eq. 8, n (2 rows_TK / TK - rows_TT / TT - rows_KK / KK) * score,
    written so that a score of zero needs no case of its own.
    """
    x, y = check_features(features), check_labels(labels, features)
    n, centre, counts = len(x), mean_row(x), y.bincount()
    sums, along = class_sums(x, y, centre), _along(x, centre)
    to_pairs, to_class = _row_products(x, y, centre, sums)

    rows_tt = to_pairs + n * along.square() + along.square().sum()  # (n,)  sum_j (Theta_ij - mu)^2
    score = _correlation(sums, counts, centre, rows_tt.sum().item())

    own, same = counts[y].double(), counts.double().square().sum() / n**2  # same = (1 + mu_K) / 2
    rows_tk = 2 * (own * along + (sums @ centre)[y] + to_class) - 2 * same * n * along
    rows_kk = 4 * (own * (1 - same) ** 2 + (n - own) * same**2)  # (n,)  sum_j (K_ij - mu_K)^2
    norms = rows_tt.sum().sqrt() * rows_kk.sum().sqrt()
    return score, n * (2 * rows_tk / norms - score * (rows_tt / rows_tt.sum() + rows_kk / rows_kk.sum()))


def _correlation(sums: Tensor, counts: Tensor, centre: Tensor, kernel_norm2: float) -> float:
    """Eq. 8 from the class sums (k, d), class counts (k,) and ||Theta - mu||^2."""
    if kernel_norm2 == 0:
        raise ValueError(
            "`features` must differ between samples, got the same row for all, so the correlation is undefined. "
            "Check that the images and the weights are what you expect."
        )
    n2, same = int(counts.sum()) ** 2, int(counts.square().sum())  # pairs; pairs of one class
    product = 2 * (2 * counts * (sums @ centre) + sums.square().sum(dim=1)).sum().item()
    label_norm = 2 * math.sqrt(same) * math.sqrt(n2 - same) / math.sqrt(n2)  # n sqrt(1 - mu_K^2)
    score = product / math.sqrt(kernel_norm2) / label_norm
    return max(-1.0, min(1.0, score))  # a perfect correlation may round to 1 + 1e-16


def _along(x: Tensor, centre: Tensor) -> Tensor:
    """Return a_i = m . g_i, shape (n,)."""
    return per_row(x, lambda _, block: block @ centre, centre)


def _pair_norms(x: Tensor, centre: Tensor) -> Tensor:
    """Return sum_j (g_i . g_j)^2, shape (n,), from blocks of the n x n side."""
    norms = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for i, j, block in gram_blocks(x, centre):
        norms[i] += block.square().sum(dim=1)
        if i != j:
            norms[j] += block.square().sum(dim=0)
    return norms


def _row_products(x: Tensor, y: Tensor, centre: Tensor, sums: Tensor) -> tuple[Tensor, Tensor]:
    """Return sum_j K_ij (K_ij + 2 a_j), with K = G G^T, and g_i . G_c(i), each of shape (n,)."""
    to_pairs = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    to_class = torch.zeros_like(to_pairs)
    wide = len(x) <= x.shape[1]
    if wide:
        to_pairs += _pair_norms(x, centre)
        pull = torch.zeros_like(centre)  # G^T a
        for _, block in blocks(x, centre):
            pull += block.T @ (block @ centre)
    else:
        gram = gram_of_columns(x, centre)
        pull = gram @ centre
    for rows, block in blocks(x, centre):
        to_pairs[rows] += 2 * (block @ pull)
        if not wide:
            to_pairs[rows] += ((block @ gram) * block).sum(dim=1)
        to_class[rows] = (block * sums[y[rows]]).sum(dim=1)
    return to_pairs, to_class
