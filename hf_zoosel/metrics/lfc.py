"""LFC: label-feature correlation, the linearised framework's score on features."""

import math

import torch
from torch import Tensor

from hf_zoosel.metrics._checks import check_features, check_labels
from hf_zoosel.metrics._kernel_rows import KernelRows, kernel_rows


def lfc(features: Tensor, labels: Tensor, *, centered: bool = False, cosine: bool = False) -> float:
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
        centered: Take the mean row from the features before Eq. 6, so that a large mean common
            to all samples, as after a ReLU, does not dilute the score. With classes of equal size
            this is the linear CKA of features and one-hot labels (Kornblith et al. 2019), as both
            kernels are then centred twice; else CKA times a number that only the labels decide.
        cosine: Divide each row, centred or not, by its length. A row of zeros (once centred: a row
            that equals the mean up to rounding) has no direction and stays zero.

    Returns:
        Correlation in [-1, 1]; higher is better. It falls with the number of classes:
        compare models on one sample of one target only.

    Raises:
        ValueError: If shapes disagree, features are not finite or all rows are equal (with
            ``cosine``: have one direction), or fewer than two classes are present.
        TypeError: If ``features`` are not floats or ``labels`` not integers.

    Reference:
        Deshpande et al., "A linearized framework and a new benchmark for model
        selection for fine-tuning", 2021, Eq. 8 with Theta_F of Eq. 6; the norms are
        Frobenius norms. https://arxiv.org/abs/2102.00084. ``centered`` and ``cosine`` are ours.

    Example:
        >>> import torch
        >>> features = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
        >>> round(lfc(features, torch.tensor([3, 3, 7, 7])), 4)
        0.825
    """
    x, y = check_features(features), check_labels(labels, features)
    rows = kernel_rows(x, centered=centered, cosine=cosine)
    squares = rows.pair_norms() if rows.is_wide else rows.gram_of_columns().square_()
    kernel_norm2 = squares.sum() + 2 * len(x) * rows.along(rows.mean).square().sum()
    return _correlation(rows, rows.class_sums(y), y.bincount(), kernel_norm2.item())


def lfc_influence(
    features: Tensor, labels: Tensor, *, centered: bool = False, cosine: bool = False
) -> tuple[float, Tensor]:
    """Return ``lfc`` and each sample's influence on it, ``(n,)`` float64, which sums to zero.

    The derivative of the correlation over pairs weighted w_i w_j, at w = 1: with row sums
    over j of the three products in Eq. 8, n (2 rows_TK / TK - rows_TT / TT - rows_KK / KK) * score,
    written so that a score of zero needs no case of its own. The mean that ``centered`` takes away is held.
    """
    x, y = check_features(features), check_labels(labels, features)
    rows = kernel_rows(x, centered=centered, cosine=cosine)
    n, centre, counts = len(x), rows.mean, y.bincount()
    sums, along = rows.class_sums(y), rows.along(centre)
    to_pairs, to_class = _row_products(rows, y, sums)

    rows_tt = to_pairs + n * along.square() + along.square().sum()  # (n,)  sum_j (Theta_ij - mu)^2
    score = _correlation(rows, sums, counts, rows_tt.sum().item())

    own, same = counts[y].double(), counts.double().square().sum() / n**2  # same = (1 + mu_K) / 2
    rows_tk = 2 * (own * along + (sums @ centre)[y] + to_class) - 2 * same * n * along
    rows_kk = 4 * (own * (1 - same) ** 2 + (n - own) * same**2)  # (n,)  sum_j (K_ij - mu_K)^2
    norms = rows_tt.sum().sqrt() * rows_kk.sum().sqrt()
    return score, n * (2 * rows_tk / norms - score * (rows_tt / rows_tt.sum() + rows_kk / rows_kk.sum()))


def _correlation(rows: KernelRows, sums: Tensor, counts: Tensor, kernel_norm2: float) -> float:
    """Eq. 8 from the class sums (k, d), class counts (k,) and ||Theta - mu||^2."""
    if kernel_norm2 <= rows.rounding2:
        raise ValueError(
            f"`features` must differ between samples, got the same {'row' if rows.scale is None else 'direction'} "
            "for all, so the correlation is undefined. Check that the images and the weights are what you expect."
        )
    n2, same = int(counts.sum()) ** 2, int(counts.square().sum())  # pairs; pairs of one class
    product = 2 * (2 * counts * (sums @ rows.mean) + sums.square().sum(dim=1)).sum().item()
    label_norm = 2 * math.sqrt(same) * math.sqrt(n2 - same) / math.sqrt(n2)  # n sqrt(1 - mu_K^2)
    score = product / math.sqrt(kernel_norm2) / label_norm
    return max(-1.0, min(1.0, score))  # a perfect correlation may round to 1 + 1e-16


def _row_products(rows: KernelRows, y: Tensor, sums: Tensor) -> tuple[Tensor, Tensor]:
    """Return sum_j K_ij (K_ij + 2 a_j), with K = G G^T, and g_i . G_c(i), each of shape (n,)."""
    to_pairs = rows.pair_norms() if rows.is_wide else y.new_zeros(len(y), dtype=torch.float64)
    to_class = torch.zeros_like(to_pairs)
    if rows.is_wide:
        pull = torch.zeros_like(rows.mean)  # G^T a
        for _, block in rows.blocks():
            pull += block.T @ (block @ rows.mean)
    else:
        gram = rows.gram_of_columns()
        pull = gram @ rows.mean
    for own, block in rows.blocks():
        to_pairs[own] += 2 * (block @ pull)
        if not rows.is_wide:
            to_pairs[own] += ((block @ gram) * block).sum(dim=1)
        to_class[own] = (block * sums[y[own]]).sum(dim=1)
    return to_pairs, to_class
