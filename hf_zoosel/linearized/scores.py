"""Scores of the linearised framework: how fast and how well would fine-tuning fit these labels?"""

import warnings

from torch import Tensor
from torch.nn.functional import one_hot

from hf_zoosel.linearized._checks import check_kernel, check_labels, check_residual, eigen

_TRUSTED = 1e-10  # least over greatest eigenvalue below which half the digits of a float64 inverse are lost


def generalization_score(kernel: Tensor, labels: Tensor, *, ridge: float = 0.0) -> float:
    r"""Minus the bound on the test loss of linearised fine-tuning: are the labels easy for this kernel?

    The paper's bound is y^T Theta^{-1} y / n = 1/n sum_k (y . v_k)^2 / lambda_k (Eq. 4), lower is better; this
    returns its negative. Labels along eigenvectors of large eigenvalues are learned fast and generalise.

    With two classes, y is +1 for one and -1 for the other. With more, the bound is averaged over classes, y being
    +1 for the samples of a class and -1 for all others; for two classes that is the same number. (The paper's
    +-1 label kernel in place of y y^T would not do here: it is indefinite for more than two classes.)

    Args:
        kernel: Theta, shape ``(n_samples, n_samples)``, symmetric and positive definite.
        labels: Target class ids, shape ``(n_samples,)``, any integers.
        ridge: Added to the diagonal, as a multiple of its mean: y^T (Theta + ridge tr(Theta)/n I)^{-1} y / n.
            It makes singular kernels invertible, and does not change what the scale of the kernel does.

    Returns:
        Score below zero; higher is better. A kernel c times as large has a score 1/c times as large: models whose
        outputs differ in scale are compared together with it.

    Raises:
        ValueError: If shapes disagree, the kernel is not finite, symmetric and positive semi-definite, or is
            singular with the ridge (duplicate samples, fewer parameters than samples); if fewer than two classes
            are present, or ``ridge`` is below 0.
        TypeError: If the kernel is not of floats or ``labels`` not of integers.

    Warns:
        UserWarning: If the least eigenvalue is below 1e-10 of the greatest, so that rounding of the gradients
            decides the score.

    Reference:
        Deshpande et al., "A linearized framework and a new benchmark for model selection for fine-tuning", 2021,
        Eq. 4, after Arora et al. 2019. https://arxiv.org/abs/2102.00084 Several classes and the ridge are ours.

    Example:
        >>> import torch
        >>> kernel = torch.tensor([[4.0, 0.0], [0.0, 1.0]])
        >>> generalization_score(kernel, torch.tensor([0, 1]))  # -(1/4 + 1) / 2
        -0.625
    """
    if not 0 <= ridge < float("inf"):
        raise ValueError(f"`ridge` must be a finite number of at least 0, got {ridge}.")
    values, vectors = eigen(kernel)
    y = signed_targets(check_labels(labels, len(kernel)).to(values.device))
    shifted = values + ridge * values.mean()  # the mean eigenvalue is that of the diagonal
    _check_invertible(shifted)
    projected = vectors.T @ y  # (n, k)  y . v_k
    return -((projected.square() / shifted[:, None]).sum() / y.numel()).item()  # Eq. 4


def initial_decrease(kernel: Tensor, residual: Tensor) -> float:
    """How fast fine-tuning lowers its loss at first: dY^T Theta dY, dY = targets less outputs.

    Under gradient flow at learning rate eta the loss changes by -eta t times this for L = 1/2 sum dY^2 and by
    -4 eta t times this for L = sum dY^2, to first order in the time t; the paper's Eq. 3 leaves the factor out.

    Args:
        kernel: Theta, shape ``(n_samples, n_samples)``, symmetric.
        residual: dY, shape ``(n_samples,)``, or ``(n_samples, n_outputs)`` for outputs that share the kernel, whose
            decreases are added. For class labels: ``signed_targets(labels)`` less the outputs.

    Returns:
        The decrease; higher is better. At least 0 where the kernel is positive semi-definite. It grows with the
        scale of the kernel and the square of that of the residual.

    Raises:
        ValueError: If shapes disagree, or the kernel is not finite and symmetric, or the residual not finite.
        TypeError: If one of them is not of floats.

    Reference:
        Deshpande et al. 2021, Eq. 3. https://arxiv.org/abs/2102.00084

    Example:
        >>> import torch
        >>> initial_decrease(torch.tensor([[4.0, 0.0], [0.0, 1.0]]), torch.tensor([1.0, -1.0]))
        5.0
    """
    theta = check_kernel(kernel)
    dy = check_residual(residual, len(theta)).to(theta.device)
    return (dy * (theta @ dy)).sum().item()


def label_gradient_score(kernel: Tensor, labels: Tensor) -> float:
    """Eq. 3 for a network that knows nothing yet: Theta . K_Y, with K_Y = +1 within a class and -1 between classes.

    For two classes that is ``initial_decrease`` of labels +-1; for more it is the paper's extension of it. Its
    correlation form, free of the scale of the kernel, is LGC.

    Args:
        kernel: Theta, shape ``(n_samples, n_samples)``, symmetric.
        labels: Target class ids, shape ``(n_samples,)``, any integers.

    Returns:
        Score of any sign; higher is better. It grows with the scale of the kernel and the number of samples.

    Raises:
        ValueError: If shapes disagree, the kernel is not finite and symmetric, or fewer than two classes are present.
        TypeError: If the kernel is not of floats or ``labels`` not of integers.

    Reference:
        Deshpande et al. 2021, Eq. 7. https://arxiv.org/abs/2102.00084

    Example:
        >>> import torch
        >>> label_gradient_score(torch.tensor([[4.0, 1.0], [1.0, 1.0]]), torch.tensor([0, 1]))
        3.0
    """
    theta = check_kernel(kernel)
    z = one_hot(check_labels(labels, len(theta))).to(theta)  # (n, k);  K_Y = 2 z z^T - 1
    return (2 * (z * (theta @ z)).sum() - theta.sum()).item()


def signed_targets(labels: Tensor) -> Tensor:
    """Return class labels as the targets +-1 of squared-error fine-tuning.

    Args:
        labels: Class ids, shape ``(n_samples,)``, any integers.

    Returns:
        Float64 columns, shape ``(n_samples, k)``: +1 for the samples of a class and -1 for all others, in the order
        of the ids. Two classes have one column, +1 for the larger id.

    Raises:
        ValueError: If ``labels`` are not one-dimensional or hold fewer than two classes.
        TypeError: If ``labels`` are not integers.

    Example:
        >>> import torch
        >>> signed_targets(torch.tensor([3, 7, 7])).flatten().tolist()
        [-1.0, 1.0, 1.0]
    """
    columns = 2 * one_hot(check_labels(labels)).double() - 1
    return columns[:, 1:] if columns.shape[1] == 2 else columns


def _check_invertible(eigenvalues: Tensor) -> None:
    least, greatest = eigenvalues.min().item(), eigenvalues.max().item()
    if least == 0:
        rank = int(eigenvalues.count_nonzero())
        raise ValueError(
            f"`kernel` must be positive definite, got rank {rank} of {len(eigenvalues)}: there are duplicate samples, "
            "or fewer parameters than samples. Pass `ridge=1e-6`, or choose more parameters."
        )
    if least < _TRUSTED * greatest:
        warnings.warn(
            f"`kernel` is close to singular (eigenvalues from {least:.3g} to {greatest:.3g}): rounding decides the "
            "score. Pass `ridge=1e-6`.",
            stacklevel=3,
        )
