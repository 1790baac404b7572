"""LGC: label-gradient correlation, the linearised framework's score on gradients."""

import math

import torch
from torch import Tensor

from hf_zoosel.metrics._checks import check_features, check_labels
from hf_zoosel.metrics.lfc import lfc, lfc_influence

_PAIRS_AT_ONCE = 2**22  # products of positions held at a time: 32 MB in float64
_ROUNDING = 1e-12  # of the largest product: what equal gradients may differ by


def lgc(gradients: Tensor, labels: Tensor) -> float:
    r"""Label-gradient correlation: does one step on a sample move the output of others of its class?

    The Pearson correlation, over all pairs of samples (i, j), of the neural tangent kernel
    Theta_ij = grad f(x_i) . grad f(x_j) with the label kernel K_ij = +1 (same class) or -1: ``lfc`` with gradients
    in the place of features.

    Args:
        gradients: Gradient of a scalar output with respect to some of the weights, one row a sample, shape
            ``(n_samples, n_weights)`` or a random projection of it; any float type, sums are in float64.
        labels: Target class ids, shape ``(n_samples,)``, any integers.

    Returns:
        Correlation in [-1, 1]; higher is better. Compare models on one sample of one target only.

    Raises:
        ValueError: If shapes disagree, gradients are not finite or all rows are equal, or fewer than two classes
            are present.
        TypeError: If ``gradients`` are not floats or ``labels`` not integers.

    Reference:
        Deshpande et al., "A linearized framework and a new benchmark for model selection for fine-tuning", 2021,
        Eq. 8, https://arxiv.org/abs/2102.00084. The paper takes the last convolution, projected to 10,000
        numbers; it does not say which scalar is differentiated. ``rank_models`` takes the mean feature for
        ``"lgc"``, the sum of the source logits for ``"lgc_logits"`` and a seeded random head for ``"lgc_random"``.

    Example:
        >>> gradients = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
        >>> round(lgc(gradients, torch.tensor([3, 3, 7, 7])), 4)
        0.825
    """
    return lfc(_named(gradients), labels)


def lgc_influence(gradients: Tensor, labels: Tensor) -> tuple[float, Tensor]:
    """Return ``lgc`` and each sample's influence on it, ``(n,)`` float64; see ``lfc_influence``."""
    return lfc_influence(_named(gradients), labels)


def lgc_exact(inputs: Tensor, signals: Tensor, labels: Tensor) -> float:
    """Label-gradient correlation of one layer without projecting, or ever forming, its gradients.

    Args:
        inputs: What the layer sees at each position, shape ``(n_samples, n_positions, n_in)``; for a convolution
            its unfolded patches.
        signals: Gradient of the scalar with respect to the layer's output, ``(n_samples, n_positions, n_out)``.
        labels: Target class ids, shape ``(n_samples,)``, any integers.

    Returns:
        Correlation in [-1, 1]; higher is better.

    Raises:
        ValueError: As ``lgc``, and if ``inputs`` and ``signals`` differ in samples or positions.
        TypeError: If they are not floats or ``labels`` not integers.

    Example:
        >>> inputs, signals = torch.rand(6, 4, 3), torch.rand(6, 4, 2)
        >>> labels = torch.tensor([0, 0, 1, 1, 2, 2])
        >>> gradients = torch.einsum("npa,npb->nab", inputs, signals).flatten(1)
        >>> abs(lgc_exact(inputs, signals, labels) - lgc(gradients, labels)) < 1e-5
        True
    """
    y = check_labels(labels, inputs)
    theta = gradient_gram(inputs, signals)
    kernel = torch.where(y[:, None] == y, 1.0, -1.0).to(theta)
    largest = theta.abs().max()
    theta, kernel = theta - theta.mean(), kernel - kernel.mean()
    norm = theta.norm() * kernel.norm()
    if theta.abs().max() <= _ROUNDING * largest:
        raise ValueError("`signals` must differ between samples, got the same gradient for all. Check the images.")
    return ((theta * kernel).sum() / norm).clamp(-1, 1).item()


def gradient_gram(inputs: Tensor, signals: Tensor) -> Tensor:
    """Inner products of the samples' weight gradients, which are never formed.

    The gradient of sample i is sum_p signal_i(p) (x) input_i(p), so that the product of two is
    sum_{p, q} (signal_i(p) . signal_j(q)) (input_i(p) . input_j(q)).

    Args:
        inputs: Shape ``(n, n_positions, n_in)``.
        signals: Shape ``(n, n_positions, n_out)``.

    Returns:
        Shape ``(n, n)``, float64.

    Raises:
        ValueError: If shapes disagree or an entry is not finite.
    """
    if inputs.ndim != 3 or signals.ndim != 3 or inputs.shape[:2] != signals.shape[:2]:
        raise ValueError(
            "`inputs` and `signals` must be (n_samples, n_positions, width) with the same samples and positions, "
            f"got {tuple(inputs.shape)} and {tuple(signals.shape)}."
        )
    n, positions = inputs.shape[:2]
    check_features(inputs.flatten(1), "inputs")
    check_features(signals.flatten(1), "signals")
    gram = torch.empty(n, n, dtype=torch.float64, device=inputs.device)
    step = max(1, math.isqrt(_PAIRS_AT_ONCE) // positions)
    for i in range(0, n, step):
        for j in range(i, n, step):
            pairs = _pair_products(inputs, i, j, step) * _pair_products(signals, i, j, step)  # (b, p, b, p)
            block = pairs.sum(dim=(1, 3))
            gram[i : i + step, j : j + step] = block
            gram[j : j + step, i : i + step] = block.T
    return gram


def _pair_products(vectors: Tensor, i: int, j: int, step: int) -> Tensor:
    """Inner products of all positions of two blocks of samples, ``(b, n_positions, b, n_positions)``."""
    left, right = vectors[i : i + step].double(), vectors[j : j + step].double()
    products = left.flatten(0, 1) @ right.flatten(0, 1).T
    return products.view(*left.shape[:2], *right.shape[:2])


def _named(gradients: Tensor) -> Tensor:
    return check_features(gradients, "gradients")
