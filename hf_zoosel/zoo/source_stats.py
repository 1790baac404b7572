"""What a checkpoint remembers of the data it was trained on: statistics of the source classes under it."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hf_zoosel.zoo.errors import CandidateError, one_line

FILE_NAME = "source_stats.safetensors"


@dataclass(frozen=True)
class SourceStats:
    """Features of the source classes, through the candidate itself.

    Attributes:
        means: Mean features of each source class, ``(z, d)``.
        counts: Samples behind each mean, ``(z,)`` int64.
        features: A sample of source features, ``(m, d)``, or None.
        labels: Their classes, ``(m,)`` int64, or None.
    """

    means: Tensor
    counts: Tensor
    features: Tensor | None = None
    labels: Tensor | None = None

    def __post_init__(self) -> None:
        if self.means.ndim != 2 or self.counts.shape != self.means.shape[:1]:
            raise ValueError(
                "`means` must be (n_classes, n_features) with one count a class, got shapes "
                f"{tuple(self.means.shape)} and {tuple(self.counts.shape)}."
            )
        if (self.features is None) != (self.labels is None):
            raise ValueError("`features` and `labels` must come together, got only one. Leave both out.")
        if self.features is not None and self.labels is not None:
            self._check_sample(self.features, self.labels)

    def _check_sample(self, features: Tensor, labels: Tensor) -> None:
        if features.ndim != 2 or features.shape[1] != self.means.shape[1] or labels.shape != features.shape[:1]:
            raise ValueError(
                f"`features` must be (n_samples, {self.means.shape[1]}) with one label a sample, got shapes "
                f"{tuple(features.shape)} and {tuple(labels.shape)}. Take them from the network the means are of."
            )

    @staticmethod
    def of(features: Tensor, labels: Tensor) -> "SourceStats":
        """Statistics of a labelled sample ``(m, d)``, which is kept."""
        _, numbers, counts = labels.unique(return_inverse=True, return_counts=True)
        sums = torch.zeros(len(counts), features.shape[1], dtype=torch.float64)
        sums.index_add_(0, numbers, features.double())
        return SourceStats(sums / counts[:, None], counts, features, numbers)

    def save(self, path: Path) -> Path:
        """Write as safetensors."""
        from safetensors.torch import save_file

        tensors = {name: tensor for name, tensor in vars(self).items() if tensor is not None}
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
        return path

    @staticmethod
    def load(path: Path) -> "SourceStats":
        """Read what ``save`` wrote.

        Raises:
            CandidateError: If there is no such file, or it holds something else.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            tensors = load_file(path)
            return SourceStats(tensors["means"], tensors["counts"], tensors.get("features"), tensors.get("labels"))
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise CandidateError(
                f"its source statistics {path.name} cannot be used ({type(error).__name__}: {one_line(error)})."
            ) from None
