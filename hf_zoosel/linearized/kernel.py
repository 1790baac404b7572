"""The kernel of a network at its present weights: which samples move together when it is fine-tuned."""

import torch
from torch import Tensor, nn

from hf_zoosel.linearized.gradients import (
    OutputChoice,
    ParameterChoice,
    check_inputs,
    choose_parameters,
    per_sample_gradients,
)

_BLOCK_ELEMENTS = 2**20  # 8 MB in float64


def ntk(
    module: nn.Module,
    inputs: Tensor,
    *,
    parameters: ParameterChoice = None,
    output: OutputChoice = None,
    batch_size: int = 32,
    memory: int = 2**30,
) -> Tensor:
    """Neural tangent kernel: the Gram matrix of the per-sample gradients, exact for this network and these weights.

    Theta = G G^T with G = grad_w f_w(X), of shape (n, p) (Eq. 2). As many rows of G as fit into ``memory`` are kept
    and multiplied with all later ones, which are computed anew for each such panel: G is computed once where it
    fits, and (m + 1) / 2 times where it takes m panels.

    Args:
        module: Network called as ``module(batch)``; it is not changed, and runs in eval mode.
        inputs: Samples, shape ``(n_samples, ...)``.
        parameters: Names, patterns or a predicate ``(name, parameter) -> bool``; None takes all. See
            ``per_sample_gradients``.
        output: Which scalar to differentiate: a callable giving shape ``(n,)``, ``"sum"``, or None for a network of
            one output. See ``per_sample_gradients``.
        batch_size: Samples to differentiate at a time.
        memory: Bytes of gradients to keep; at least ``batch_size`` rows are. A batch being computed comes on top.

    Returns:
        Kernel, shape ``(n_samples, n_samples)``, symmetric, positive semi-definite, in float64 on the device of the
        parameters. Gradients have the type of the parameters: convert the module to float64 for a kernel free of
        float32 rounding, which can move an activation across the kink of a ReLU.

    Raises:
        ValueError: As ``per_sample_gradients`` does; if gradients are not finite, or are zero for every sample.
        TypeError: As ``per_sample_gradients`` does.

    Reference:
        Deshpande et al., "A linearized framework and a new benchmark for model selection for fine-tuning", 2021,
        Eq. 2. https://arxiv.org/abs/2102.00084

    Example:
        >>> line = nn.Linear(2, 1)  # its gradient is the input, and 1 for the bias
        >>> ntk(line, torch.tensor([[1.0, 2.0], [3.0, 4.0]]), parameters="weight").tolist()
        [[5.0, 11.0], [11.0, 25.0]]
    """
    check_inputs(inputs, batch_size)
    chosen = list(choose_parameters(module, parameters).values())
    n, p = len(inputs), sum(value.numel() for value in chosen)
    example = torch.cat([value.flatten()[:1] for value in chosen])  # of the type and on the device of gradients
    rows = max(1, memory // (p * example.element_size()) // batch_size) * batch_size
    kernel = torch.empty(n, n, dtype=torch.float64, device=example.device)

    for start in range(0, n, rows):
        panel, stop = slice(start, min(start + rows, n)), start
        kept = example.new_empty(panel.stop - start, p)
        blocks = per_sample_gradients(
            module, inputs[start:], parameters=parameters, output=output, batch_size=batch_size
        )
        for block in blocks:
            here = slice(stop, stop + len(block))
            stop = here.stop
            if stop <= panel.stop:
                kept[here.start - start : stop - start] = block
            if stop == panel.stop:
                product = _product(kept, kept)
                kernel[panel, panel] = (product + product.T) / 2  # exactly symmetric, which BLAS does not promise
            elif stop > panel.stop:
                product = _product(kept, block)
                kernel[panel, here], kernel[here, panel] = product, product.T
            del block  # before the next one is computed
    return _checked(kernel)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Return left @ right^T in float64, converting blocks of columns only."""
    product = torch.zeros(len(left), len(right), dtype=torch.float64, device=left.device)
    step = max(64, _BLOCK_ELEMENTS // len(left))
    for a, b in zip(left.split(step, dim=1), right.split(step, dim=1), strict=True):
        product.addmm_(a.double(), b.double().T)
    return product


def _checked(kernel: Tensor) -> Tensor:
    norms = kernel.diagonal()
    bad = int((~norms.isfinite()).sum())
    if bad:
        raise ValueError(
            f"`module` must have finite gradients, got {bad} of {len(norms)} samples with NaN or infinity. "
            "Check the checkpoint and its preprocessing, or convert the module to float32."
        )
    if not norms.any():
        raise ValueError(
            "`output` must depend on `parameters`, got gradients of zero for every sample. "
            "Choose other parameters, or another output: a layer of zeros between the two lets no gradient through."
        )
    return kernel
