"""What a run reads: batches of target and source rows to train on, and rows in order to evaluate."""

from dataclasses import dataclass
from functools import cached_property

import torch

from hf_zoosel.features import Team
from hf_zoosel.training.augment import Views
from hf_zoosel.training.loading import Batch, EvaluationBatches, MixedBatches, Stream, Workers
from hf_zoosel.training.objective import Rows
from hf_zoosel.training.plan import SourcePlan, TargetPlan
from hf_zoosel.training.recipe import Recipe
from hf_zoosel.training.streams import LabelledRows
from hf_zoosel.zoo import Preprocess


@dataclass(frozen=True)
class Feed:
    """The rows of a run, as a recipe wants them.

    Attributes:
        train: Target rows to train on.
        validation: Target rows held out; None for none.
        source: Source rows, labels numbered as the source head counts them; None for none.
        views: What is seen of an image.
        preprocess: Whose second stage is applied on the device.
        recipe: Batch sizes, seed, and how the source is drawn.
        team: The processes that share each batch.
        num_workers: Processes that load images; chosen if None.
    """

    train: LabelledRows
    validation: LabelledRows | None
    source: LabelledRows | None
    views: Views
    preprocess: Preprocess
    recipe: Recipe
    team: Team
    num_workers: int | None = None

    @cached_property
    def target_plan(self) -> TargetPlan:
        """Which target rows a step sees: as many as the processes can share where there are fewer than a batch."""
        fitting = len(self.train) // self.team.size * self.team.size
        return TargetPlan(len(self.train), min(self.recipe.batch_size, fitting), self.recipe.seed)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of a pass over the target."""
        return self.target_plan.steps_per_epoch

    @property
    def has_validation(self) -> bool:
        """Whether rows are held out."""
        return self.validation is not None

    @property
    def _workers(self) -> Workers:
        return Workers(self.num_workers, self.team.device.type == "cuda", self.team.n_here)

    def batches(self, start: int, stop: int) -> MixedBatches:
        """This process's share of the batches of some steps."""
        source = None
        if self.source is not None:
            size = self.team.size
            n_rows = max(1, round(self.target_plan.batch_size * self.recipe.source_ratio / size)) * size
            weights = self.source.weights if self.recipe.source_sampling == "mass" else None
            strong = self.views.strong if self.recipe.method == "consistency" else None
            plan = SourcePlan(len(self.source), n_rows, self.recipe.seed, weights)
            source = Stream(self.source, plan, self.views.train, strong)
        return MixedBatches(
            Stream(self.train, self.target_plan, self.views.train),
            source,
            seed=self.recipe.seed,
            steps=range(start, stop),
            rank=self.team.rank,
            size=self.team.size,
            workers=self._workers,
        )

    def in_order(self, rows: LabelledRows) -> EvaluationBatches:
        """This process's share of some rows, seen as evaluation sees them."""
        size = 2 * max(8, self.target_plan.batch_size // (self.team.size * self.recipe.accumulation))
        view, rank = self.views.evaluation, self.team.rank
        return EvaluationBatches(rows, view, size, rank=rank, size=self.team.size, workers=self._workers)

    def alone(self, rows: LabelledRows) -> EvaluationBatches:
        """All of some rows, whatever other processes read."""
        return EvaluationBatches(rows, self.views.evaluation, len(rows), workers=Workers(0))

    @cached_property
    def validation_batches(self) -> EvaluationBatches:
        """The rows held out; their workers live as long as the run."""
        assert self.validation is not None
        return self.in_order(self.validation)

    def on_device(self, batch: Batch) -> Rows:
        """A batch as the network takes it."""

        def ready(pixels: torch.Tensor) -> torch.Tensor:
            return self.preprocess.batch(self.team.moved(pixels))

        labels = self.team.moved(batch.labels)
        return Rows(ready(batch.pixels), labels, batch.n_target, None if batch.strong is None else ready(batch.strong))
