"""relate_classes: which of a checkpoint's own classes each class of a data set looks like to it."""

from typing import Any, Literal

import torch

from hf_zoosel.api.arguments import one_candidate, whole_number
from hf_zoosel.features import join_team
from hf_zoosel.objectives import Relationship
from hf_zoosel.ranking.record import CandidateResult
from hf_zoosel.tasks.opening import DatasetLike
from hf_zoosel.training.materials import Columns, Materials
from hf_zoosel.training.recipe import Recipe
from hf_zoosel.training.run import prepare, relationship_of
from hf_zoosel.training.target import open_target_rows
from hf_zoosel.zoo import Spec
from hf_zoosel.zoo.image_size import with_image_size


def relate_classes(
    model: Spec | CandidateResult,
    dataset: Any,
    *,
    method: Literal["auto", "reverse", "direct"] = "auto",
    temperature: float = 1.0,
    validation: float | DatasetLike | None = 0.2,
    image_size: int | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    split: str | None = None,
    max_per_class: int | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    num_workers: int | None = None,
) -> Relationship:
    """Learn p(source class | target class), as Co-Tuning does before it trains.

    Args:
        model: A checkpoint with a trained classifier.
        dataset: The target, as ``finetune`` takes it.
        method: ``"reverse"``, by a regression from the checkpoint's probabilities to the target's classes, calibrated
            on held-out rows, and Bayes' rule; ``"direct"``, their mean over the images of a class; ``"auto"``, the
            reverse way where ten images a class are held out.
        temperature: What the checkpoint's logits are divided by.
        validation: Share of each class to hold out, the name of a split, or a data set; None for ``"direct"`` on
            all rows.
        image_size: Side of the images in pixels; the checkpoint's own if None.
        image_column: Column of the images; found if None.
        label_column: Column of the labels; found if None.
        split: Split to take; the train split if None.
        max_per_class: Images of each class; all if None.
        seed: Of the rows that are held out.
        device: Where the network runs; what Accelerate chooses if None.
        num_workers: Processes that load images.

    Returns:
        ``.matrix (n_target, n_source)``, ``.top()``, ``.to_pandas()``, ``.plot()``.

    Raises:
        ValueError: If the target has one class, or no rows are held out for the reverse way.
        hf_zoosel.zoo.CandidateError: If the checkpoint has no trained classifier.

    Reference:
        You et al., "Co-Tuning for Transfer Learning", NeurIPS 2020.

    Example:
        >>> import numpy as np, timm
        >>> from datasets import Dataset
        >>> images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
        >>> dataset = Dataset.from_dict({"image": list(images), "label": ["dark", "light"] * 4})
        >>> model = timm.create_model("test_resnet", num_classes=5)
        >>> relate_classes(model, dataset, method="direct", validation=None, image_size=32).matrix.shape
        torch.Size([2, 5])
    """
    recipe = Recipe(method="co-tuning", relationship=method, temperature=temperature, image_size=image_size, seed=seed)
    train, held_out, _ = open_target_rows(
        dataset,
        Columns(image_column, label_column, split),
        validation=validation,
        test=None,
        max_per_class=whole_number("max_per_class", max_per_class),
        seed=seed,
    )
    candidate = with_image_size(one_candidate(model), image_size)
    materials = Materials(candidate, recipe, train, held_out)
    looking, feed, _ = prepare(materials, join_team(device), num_workers)
    return relationship_of(looking, feed, materials)
