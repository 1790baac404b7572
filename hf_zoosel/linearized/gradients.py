"""The gradient of one scalar output of a network in chosen parameters, for each sample."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

ParameterChoice = str | Sequence[str] | Callable[[str, Tensor], bool] | None
OutputChoice = Callable[[Any], Tensor] | Literal["sum"] | None


def per_sample_gradients(
    module: nn.Module,
    inputs: Tensor,
    *,
    parameters: ParameterChoice = None,
    output: OutputChoice = None,
    batch_size: int = 32,
) -> Iterator[Tensor]:
    """Yield the gradients of a scalar output in chosen parameters, one row per sample, batch by batch.

    The module runs in eval mode, on one sample as seen by ``output``; its modes, parameters, ``grad`` fields and
    buffers are as before whenever the caller has control. ``torch.func.vmap`` takes a batch at once; where a
    module does what vmap cannot take (control flow on values, autograd functions without its rules), its samples
    are taken one by one, with the same result.

    Args:
        module: Network called as ``module(batch)``.
        inputs: Samples, shape ``(n_samples, ...)``; each batch is moved to the device of the parameters.
        parameters: What to differentiate in, of ``module.named_parameters()``: names or patterns such as
            ``"layer4.*"``, or a predicate ``(name, parameter) -> bool``. None takes all that are floating-point,
            trainable or not; ``lambda name, p: p.requires_grad`` takes the trainable ones.
        output: What to differentiate: a callable from what the module returns to one number per sample, shape
            ``(n,)``, or ``"sum"`` of all outputs of a sample. None is for modules that return one number per sample.
        batch_size: Samples at a time; memory is about 2 ``batch_size`` p numbers and the activations.

    Returns:
        Iterator of gradients of shape ``(b, p)``, in the type of the parameters; columns in the order of
        ``module.named_parameters()``, each parameter flattened.

    Raises:
        ValueError: If ``inputs`` is empty, ``batch_size`` below 1, a pattern matches no parameter, none is
            chosen, or ``output`` gives anything but one number per sample.
        TypeError: If ``inputs`` is no tensor, or without a callable ``output`` the module returns none.

    Reference:
        Deshpande et al., "A linearized framework and a new benchmark for model selection for fine-tuning", 2021:
        the rows of grad_w f_w(X) in Eq. 2. https://arxiv.org/abs/2102.00084 The paper does not say which scalar
        of a network of many outputs it differentiates, so it has no default here.

    Example:
        >>> line = nn.Linear(2, 1)
        >>> [rows] = per_sample_gradients(line, torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        >>> rows.tolist()  # of w_1, w_2 and the bias
        [[1.0, 2.0, 1.0], [3.0, 4.0, 1.0]]
    """
    check_inputs(inputs, batch_size)
    chosen = choose_parameters(module, parameters)
    return _gradients(module, inputs, chosen, output, batch_size)


def check_inputs(inputs: Tensor, batch_size: int) -> None:
    """Raise unless there is a sample, and a batch to put it in."""
    if not isinstance(inputs, Tensor):
        raise TypeError(f"`inputs` must be a tensor (n_samples, ...), got {type(inputs).__name__}.")
    if inputs.ndim == 0 or len(inputs) == 0:
        raise ValueError(f"`inputs` must have at least 1 sample, got shape {tuple(inputs.shape)}.")
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")


def choose_parameters(module: nn.Module, parameters: ParameterChoice) -> dict[str, Tensor]:
    """Return the chosen floating-point parameters by name, detached, in the module's order."""
    every = {name: value.detach() for name, value in module.named_parameters() if value.is_floating_point()}
    if parameters is None:
        chosen = every
    elif isinstance(parameters, (str, Sequence)):
        patterns = [parameters] if isinstance(parameters, str) else parameters
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in every):
                raise ValueError(
                    f"`parameters` must match the module's parameters, got {pattern!r}, which matches none. "
                    f"There are: {_listed(list(every))}."
                )
        chosen = {name: value for name, value in every.items() if any(fnmatchcase(name, p) for p in patterns)}
    else:
        wanted = {name for name, value in module.named_parameters() if parameters(name, value)}
        chosen = {name: value for name, value in every.items() if name in wanted}
    if not chosen:
        raise ValueError(
            f"`parameters` must choose at least 1 floating-point parameter, got none of the {len(every)} there are. "
            f"There are: {_listed(list(every))}."
        )
    return chosen


def _listed(names: list[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _gradients(
    module: nn.Module, inputs: Tensor, chosen: Mapping[str, Tensor], output: OutputChoice, batch_size: int
) -> Iterator[Tensor]:
    fixed = {name: value.detach() for name, value in module.named_parameters() if name not in chosen}
    fixed |= {name: value.detach().clone() for name, value in module.named_buffers()}  # a forward pass may write here

    def scalar(values: Mapping[str, Tensor], sample: Tensor) -> Tensor:
        return _scalar(functional_call(module, {**fixed, **values}, (sample[None],)), output)

    device = next(iter(chosen.values())).device
    vectorized = True
    for batch in inputs.split(batch_size):
        samples = batch.detach().to(device)
        with _evaluating(module):
            if vectorized:
                try:
                    rows = _all_at_once(scalar, chosen, samples)
                except torch.OutOfMemoryError:
                    raise
                except RuntimeError:  # what vmap cannot take; an error of the module itself comes again below
                    vectorized = False
            if not vectorized:
                rows = torch.stack([_one(scalar, chosen, sample) for sample in samples])
        yield rows
        del rows  # or it would stay while the next batch is computed


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Hold the module in eval mode; each part then returns to the mode it had, which may differ from its parent's."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


_Scalar = Callable[[Mapping[str, Tensor], Tensor], Tensor]


def _all_at_once(scalar: _Scalar, chosen: Mapping[str, Tensor], samples: Tensor) -> Tensor:
    with torch.no_grad(), warnings.catch_warnings():  # no graph for the caller; `grad` records its own
        warnings.filterwarnings("ignore", "There is a performance drop")  # vmap has no rule for some attention
        gradients = vmap(grad(scalar), in_dims=(None, 0))(dict(chosen), samples)
    return torch.cat([gradients[name].flatten(1) for name in chosen], dim=1)


def _one(scalar: _Scalar, chosen: Mapping[str, Tensor], sample: Tensor) -> Tensor:
    with torch.enable_grad():
        values = {name: value.detach().requires_grad_() for name, value in chosen.items()}
        result = scalar(values, sample)
        if not result.requires_grad:
            return torch.cat([torch.zeros_like(value).flatten() for value in values.values()])
        gradients = torch.autograd.grad(result, list(values.values()), materialize_grads=True)
    return torch.cat([gradient.flatten() for gradient in gradients])


def _scalar(outputs: Any, output: OutputChoice) -> Tensor:
    """Return the number to differentiate, shape (), from what the module gave for one sample."""
    if not callable(output) and not isinstance(outputs, Tensor):
        raise TypeError(
            f"`module` must return a tensor where `output` is {output!r}, got {type(outputs).__name__}. "
            "Pass a callable as `output`, such as `lambda out: out.logits.sum(-1)`."
        )
    if output is not None and not callable(output) and output != "sum":
        raise ValueError(f"`output` must be a callable, 'sum' or None, got {output!r}.")
    if output == "sum":
        return outputs.sum()
    values = output(outputs) if callable(output) else outputs.flatten()
    if values.shape != (1,):
        raise ValueError(
            f"`output` must give one number per sample, shape (1,) for one sample, got {tuple(values.shape)}. "
            "Pass `output='sum'` or a callable such as `lambda logits: logits[:, 0]`."
        )
    return values[0]
