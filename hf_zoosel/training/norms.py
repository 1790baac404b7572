"""What batch normalisation does with the statistics of two streams of images."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from hf_zoosel.features import Team


def _norms(module: nn.Module) -> list[_NormBase]:
    return [layer for layer in module.modules() if isinstance(layer, _NormBase) and layer.track_running_stats]


@contextmanager
def unmoved_statistics(module: nn.Module) -> Iterator[None]:
    """Normalise by the statistics of the batch, as in training, without moving the running ones."""
    layers = _norms(module)
    momenta = [(layer.momentum, layer.num_batches_tracked) for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
        layer.num_batches_tracked = None
    try:
        yield
    finally:
        for layer, (momentum, count) in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            layer.num_batches_tracked = count


@contextmanager
def rows_for_statistics() -> Iterator[None]:
    """Say what to do where a pass has a single row and maps of a single pixel, which have no variance.

    Raises:
        ValueError: In place of torch's.
    """
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ValueError(
            "`batch_size` must leave two rows for each pass of each process where batch normalisation sees a single "
            "pixel, got one. Raise it (or `source_ratio`), lower `accumulation`, or take batch_norm='frozen'."
        ) from error


def freeze_statistics(module: nn.Module) -> None:
    """Normalise by the running statistics from here on; ``module.train()`` undoes it."""
    for layer in _norms(module):
        layer.eval()


def average_statistics(module: nn.Module, team: Team) -> None:
    """Give every process the mean of all processes' running statistics.

    They are linear in what each step adds, so that it does not matter how often this is done.
    """
    if team.size == 1:
        return
    from accelerate.utils import reduce

    for layer in _norms(module):
        for buffer in (layer.running_mean, layer.running_var):
            if buffer is not None:
                buffer.copy_(reduce(buffer.clone(), "mean"))
