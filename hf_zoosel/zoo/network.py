"""A loaded network that gives penultimate features and source logits from one forward pass."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Output:
    """One batch through a network: ``features (n, n_features)`` and ``logits (n, n_source_classes)`` or None."""

    features: Tensor
    logits: Tensor | None


@dataclass(frozen=True)
class _Call:
    layer: nn.Module
    input: Tensor
    output: Tensor


class Network:
    """A module whose classifier is watched, so that its input and output come out of a plain forward pass.

    The classifier is found by looking, not by name: on the first batch every linear layer (or 1 x 1
    convolution) that gives one vector per image is recorded, and the one whose output is the network's
    output is the classifier. That holds for timm, transformers and home-made networks alike. Where two
    heads are averaged (distilled transformers) the features are averaged too, or joined where they
    differ in width (networks of two branches).

    Args:
        module: The network, on the CPU, with its weights.
        forward: Calls the module on pixels ``(n, 3, height, width)`` and returns the output tensor.
        classifier: ``"trained"`` with the checkpoint; ``"untrained"``, present but new: its input is the
            features, its output is dropped; ``"none"``: the network's output is the features.
        fallback: Features and logits where no layer's output is the network's output (a head that
            pools after its last layer, say). Without it the output itself is the features.
        channels_last: Whether its weights may lie channels-last. A person's own code may count on maps that are
            contiguous (``x.view(len(x), -1)``), and convolutions make them so from contiguous weights and pixels.
    """

    def __init__(
        self,
        module: nn.Module,
        forward: Callable[[nn.Module, Tensor], Tensor] | None = None,
        *,
        classifier: Literal["trained", "untrained", "none"] = "trained",
        fallback: Callable[[nn.Module, Tensor], Output] | None = None,
        channels_last: bool = True,
    ) -> None:
        self.module = module.eval()
        self.channels_last = channels_last
        self.n_parameters = sum(p.numel() for p in module.parameters())
        self._forward = forward or _plain_call
        self._logits_count = classifier == "trained"
        self._fallback = fallback
        self._heads: list[nn.Module] | None = [] if classifier == "none" else None

    def to(self, device: torch.device) -> "Network":
        """Move to a device, with channels-last weights where they may be (what convolutions are fastest on)."""
        moved_to(self.module, device, channels_last=self.channels_last)
        return self

    def weights_digest(self) -> str:
        """Digest of every parameter and buffer by name: the same wherever the checkpoint lies."""
        hasher = hashlib.blake2b(digest_size=16)
        for name, tensor in sorted([*self.module.named_parameters(), *self.module.named_buffers()]):
            hasher.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            hasher.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return hasher.hexdigest()

    @property
    def forward(self) -> Callable[[nn.Module, Tensor], Tensor]:
        """What runs the module: ``forward(module, pixels)`` gives its output tensor."""
        return self._forward

    def head_names(self, pixels: Tensor) -> tuple[str, ...]:
        """Where in the module its classifier lies: one layer, several whose mean is the output, or none.

        Args:
            pixels: A batch ``(n, 3, height, width)``, run through the network if none was before.
        """
        if self._heads is None:
            with torch.no_grad():
                self(pixels)
        heads = self._heads or []
        return tuple(name for name, layer in self.module.named_modules() if any(layer is head for head in heads))

    def __call__(self, pixels: Tensor) -> Output:
        """Features and logits of one batch ``(n, 3, height, width)``."""
        if self._heads == [] and self._fallback is not None:
            return self._fallback(self.module, pixels)
        watched = _linear_layers(self.module) if self._heads is None else self._heads
        calls: list[_Call] = []
        record = _recorder(calls, len(pixels))
        hooks = [layer.register_forward_hook(record, with_kwargs=True) for layer in watched]
        try:
            output = self._forward(self.module, pixels)
        finally:
            for hook in hooks:
                hook.remove()
        if self._heads is None:
            self._heads = [call.layer for call in _heads_of(output, calls)]
        heads = [call for call in calls if call.layer in self._heads]
        if heads:
            logits = heads[0].output if len(heads) == 1 else output
            return Output(_one_input(heads), logits if self._logits_count else None)
        if self._fallback is not None:
            return self._fallback(self.module, pixels)
        return Output(one_vector_each(output), None)


def _plain_call(module: nn.Module, pixels: Tensor) -> Tensor:
    return module(pixels)


def _linear_layers(module: nn.Module) -> list[nn.Module]:
    def is_linear(layer: nn.Module) -> bool:
        return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1))

    return [layer for layer in module.modules() if is_linear(layer)]


def _recorder(calls: list[_Call], n: int) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], None]:
    def record(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if not isinstance(output, Tensor) or output.ndim < 2 or len(output) != n:
            return
        if output.flatten(1).shape[1] == output.shape[1]:
            layer_input = args[0] if args else kwargs["input"]
            calls.append(_Call(layer, layer_input.flatten(1), output.flatten(1)))

    return record


def _one_input(heads: list[_Call]) -> Tensor:
    """The feature vectors behind the heads: their mean, or side by side where they differ in width."""
    inputs = [head.input for head in heads]
    alike = len({features.shape for features in inputs}) == 1
    return torch.stack(inputs).mean(dim=0) if alike else torch.cat(inputs, dim=1)


def _heads_of(output: Tensor, calls: list[_Call]) -> list[_Call]:
    """The calls that made the output: the last one (softmax may follow), or two whose mean it is."""
    alike = [call for call in calls if call.output.shape == output.shape]
    if not alike:
        return []
    last, final = alike[-1].output.float(), output.float()
    tolerance = 1e-4 if output.dtype == torch.float32 else 2e-2  # bfloat16 keeps 8 bits
    if torch.equal(final, last) or any(
        _close(final, f(last), tolerance) for f in (_softmax, _log_softmax, torch.sigmoid)
    ):
        return alike[-1:]
    mean = torch.stack([call.output.float() for call in alike[-2:]]).mean(dim=0)
    return alike[-2:] if _close(final, mean, tolerance) else []


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    return bool((a - b).abs().max() <= tolerance * b.abs().max())


def _softmax(logits: Tensor) -> Tensor:
    return logits.softmax(dim=1)


def _log_softmax(logits: Tensor) -> Tensor:
    return logits.log_softmax(dim=1)


def one_vector_each(output: Tensor) -> Tensor:
    """Pool what a network without a head puts out: tokens (n, t, d) or maps (n, d, h, w) to (n, d)."""
    if output.ndim == 3:
        return output.mean(dim=1)
    return output.flatten(2).mean(dim=2) if output.ndim == 4 else output.flatten(1)


def moved_to(module: nn.Module, device: torch.device, *, channels_last: bool) -> nn.Module:
    """The module on a device; never channels-last on MPS, where gradients of batch norms come out wrong then.

    Reference:
        https://github.com/pytorch/pytorch/issues/175189
    """
    if not channels_last or torch.device(device).type == "mps":
        return module.to(device)
    moved: Any = module  # memory_format is missing from torch's stubs
    return cast(nn.Module, moved.to(device=device, memory_format=torch.channels_last))
