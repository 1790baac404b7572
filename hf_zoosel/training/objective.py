"""The loss of one forward pass over target and source rows: a sum of named terms."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hf_zoosel.objectives import REGULARIZERS, co_tuning_loss, consistency_loss
from hf_zoosel.training.model import HeadsOutput, TwoHeads
from hf_zoosel.training.norms import unmoved_statistics
from hf_zoosel.training.recipe import Recipe


@dataclass(frozen=True)
class Rows:
    """Rows of both streams, on the device and normalised.

    Attributes:
        pixels: Target rows, then source rows, ``(n, channels, height, width)``.
        labels: Their classes ``(n,)``; -1 where there is none.
        n_target: How many are the target's.
        strong: A second, strongly augmented view of the source rows, for consistency.
    """

    pixels: Tensor
    labels: Tensor
    n_target: int
    strong: Tensor | None = None


@dataclass
class Objective:
    """The loss of a recipe.

    Attributes:
        recipe: Method, weights and regularizers.
        start: A frozen copy of the model before training, where a regularizer looks at it.
        relationship: p(source | target) ``(n_target_classes, n_source_classes)``, for Co-Tuning.
        channel_weights: Of DELTA's attention.
    """

    recipe: Recipe
    start: TwoHeads | None = None
    relationship: Tensor | None = None
    channel_weights: list[Tensor] | None = None
    _start_weights: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.start is not None:
            self.start.eval().requires_grad_(False)
            self._start_weights = self.start.backbone_parameters()

    @property
    def needs(self) -> set[str]:
        """What the regularizers are called with."""
        return {need for name in self.recipe.regularizers for need in REGULARIZERS[name].needs}

    def __call__(self, model: nn.Module, bare: TwoHeads, rows: Rows, source_weight: float) -> dict[str, Tensor]:
        """Terms of the loss, already weighted; their sum is what is minimised.

        Args:
            model: As Accelerate wrapped it.
            bare: The same model, not wrapped.
            rows: A batch.
            source_weight: Weight of the source's term at this step.
        """
        with bare.watching_maps() if "maps" in self.needs else nullcontext([]) as maps:
            target, source, strong = self._forward(model, bare, rows)
            passes = 1 + (self.recipe.batch_norm == "separate" and source is not None)
            seen = [one[: rows.n_target] for one in maps[: len(maps) // passes]]  # the target's pass is the first
        labels = rows.labels[: rows.n_target]
        recipe = self.recipe
        terms = {"target": cross_entropy(target.target.float(), labels, label_smoothing=recipe.label_smoothing)}
        if source is not None and recipe.method == "consistency":
            assert strong is not None
            terms["source"] = source_weight * consistency_loss(source.target.float(), strong.target.float())
        elif source is not None:
            logits = source.source if source.source is not None else source.kept
            assert logits is not None
            terms["source"] = source_weight * cross_entropy(logits.float(), rows.labels[rows.n_target :])
        if self.relationship is not None:
            assert target.kept is not None
            terms["co_tuning"] = recipe.co_tuning_weight * co_tuning_loss(
                target.kept.float(), labels, self.relationship
            )
        return terms | self._penalties(bare, target, rows.pixels[: rows.n_target], seen)

    def _forward(
        self, model: nn.Module, bare: TwoHeads, rows: Rows
    ) -> tuple[HeadsOutput, HeadsOutput | None, HeadsOutput | None]:
        """Target rows, source rows and their strong view through the model, in one pass or in one each."""
        n, n_source = rows.n_target, len(rows.pixels) - rows.n_target
        views = [rows.pixels] if rows.strong is None else [rows.pixels, rows.strong]
        if n_source == 0:
            return model(rows.pixels), None, None
        if self.recipe.batch_norm != "separate":
            output = model(torch.cat(views) if len(views) > 1 else rows.pixels)
            parts = [n, n_source] + [n_source] * (len(views) - 1)
        else:
            target = model(rows.pixels[:n])
            with unmoved_statistics(bare):
                output = model(torch.cat([rows.pixels[n:], *views[1:]]))
            split = _split(output, [n_source] * len(views))
            return target, split[0], split[1] if len(split) > 1 else None
        split = _split(output, parts)
        return split[0], split[1], split[2] if len(split) > 2 else None

    def _penalties(self, bare: TwoHeads, target: HeadsOutput, pixels: Tensor, maps: list[Tensor]) -> dict[str, Tensor]:
        penalties = {
            name: strength
            for name, strength in self.recipe.regularizers.items()
            if REGULARIZERS[name].kind == "penalty"
        }
        if not penalties:
            return {}
        given: dict[str, Any] = {
            "weights": bare.backbone_parameters(),
            "start": self._start_weights,
            "features": target.features.float(),
            "maps": maps,
            "channel_weights": self.channel_weights,
            "kept_logits": None if target.kept is None else target.kept.float(),
        } | self._of_start(pixels)
        terms = {}
        for name, strength in penalties.items():
            entry = REGULARIZERS[name]
            terms[name] = strength * entry.fn(**{need: given[need] for need in entry.needs})
        return terms

    def _of_start(self, pixels: Tensor) -> dict[str, Any]:
        """Maps and logits of the network before training, on the same pixels."""
        if self.start is None or not self.needs.intersection({"start_maps", "start_logits"}):
            return {}
        with torch.no_grad(), self.start.watching_maps() as maps:
            output = self.start(pixels)
            logits = None if output.kept is None else output.kept.float()
            return {"start_maps": list(maps), "start_logits": logits}


def _split(output: HeadsOutput, sizes: list[int]) -> list[HeadsOutput]:
    """The parts of a batch."""
    parts: list[Any] = [[None] * len(sizes) if one is None else one.split(sizes) for one in output]
    return [HeadsOutput(*(part[i] for part in parts)) for i in range(len(sizes))]
