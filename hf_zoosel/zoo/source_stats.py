"""What a checkpoint remembers of the data it was trained on: statistics of the source classes under it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hf_zoosel.zoo.atomic import replacing
from hf_zoosel.zoo.errors import CandidateError, one_line
from hf_zoosel.zoo.provenance import Provenance

if TYPE_CHECKING:
    from hf_zoosel.zoo.candidate import Candidate

FILE_NAME = "source_stats.safetensors"
_TENSORS = ("means", "counts", "features", "labels", "variances")


@dataclass(frozen=True)
class SourceStats:
    """Features of the source classes, through the candidate itself.

    Attributes:
        means: Mean features of each source class, ``(z, d)``.
        counts: Samples behind each mean, ``(z,)`` int64.
        features: A sample of source features, ``(m, d)``, or None.
        labels: Their classes, ``(m,)`` int64, or None.
        class_names: Name of each class, ``(z,)``, or None.
        variances: Mean squared deviation from the mean of each class, ``(z, d)``, or None.
        provenance: What they were computed from; None if that is not known.
    """

    means: Tensor
    counts: Tensor
    features: Tensor | None = None
    labels: Tensor | None = None
    class_names: tuple[str, ...] | None = None
    variances: Tensor | None = None
    provenance: Provenance | None = None

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
        if self.class_names is not None and len(self.class_names) != len(self.means):
            raise ValueError(
                f"`class_names` must name each of the {len(self.means)} classes, got {len(self.class_names)} names."
            )
        if self.variances is not None and self.variances.shape != self.means.shape:
            raise ValueError(
                f"`variances` must be shaped like `means`, {tuple(self.means.shape)}, got "
                f"{tuple(self.variances.shape)}."
            )

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

    def check_matches(self, candidate: "Candidate") -> None:
        """Refuse statistics of another checkpoint, layer or preprocessing; those of unknown provenance pass.

        A checkpoint that has moved, to the Hub say, has another revision: its weights are then loaded and compared.

        Raises:
            ValueError: If they are not this candidate's, or its weights cannot be loaded to be compared.
        """
        if self.provenance is not None:
            self.provenance.check_matches(candidate)

    def save(self, path: Path) -> Path:
        """Write as safetensors; a file that is there is replaced at once, or not at all."""
        from safetensors.torch import save_file

        tensors = {name: getattr(self, name) for name in _TENSORS if getattr(self, name) is not None}
        metadata = {
            **({} if self.class_names is None else {"class_names": json.dumps(self.class_names)}),
            **({} if self.provenance is None else {"provenance": self.provenance.to_json()}),
        }
        with replacing(path) as temporary:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata or None)
        return path

    @staticmethod
    def load(path: Path) -> "SourceStats":
        """Read what ``save`` wrote.

        Raises:
            CandidateError: If there is no such file, or it holds something else.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in set(file.keys()).intersection(_TENSORS)}
            names, provenance = metadata.get("class_names"), metadata.get("provenance")
            return SourceStats(
                tensors.pop("means"),
                tensors.pop("counts"),
                **tensors,
                class_names=None if names is None else tuple(json.loads(names)),
                provenance=None if provenance is None else Provenance.from_json(provenance),
            )
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CandidateError(
                f"its source statistics {path.name} cannot be used ({type(error).__name__}: {one_line(error)})."
            ) from None
