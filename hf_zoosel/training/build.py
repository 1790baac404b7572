"""From a candidate and a recipe to a model with the heads the recipe needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from hf_zoosel.objectives import REGULARIZERS
from hf_zoosel.training.model import TwoHeads
from hf_zoosel.training.randomness import Purpose, generator
from hf_zoosel.training.recipe import Recipe
from hf_zoosel.training.streams import LabelledRows
from hf_zoosel.zoo import Candidate, CandidateError, Network
from hf_zoosel.zoo.class_names import match_class_names
from hf_zoosel.zoo.errors import one_line
from hf_zoosel.zoo.image_size import is_image_processor

_NEW_HEAD = "the checkpoint's own head looks as if it had never been trained"


@dataclass(frozen=True)
class Built:
    """A model, and what its heads mean.

    Attributes:
        model: On the CPU, in evaluation mode.
        source: The source rows, labels numbered as its head counts them; None without a source.
        notes: What a person should know.
    """

    model: TwoHeads
    source: LabelledRows | None
    notes: tuple[str, ...] = ()


def build(
    candidate: Candidate, recipe: Recipe, n_target: int, source: LabelledRows | None, sample_pixels: Tensor
) -> Built:
    """Give a checkpoint a new target head, and a source head of its own or a new one.

    Args:
        candidate: The checkpoint.
        recipe: Says which heads are needed.
        n_target: Classes of the target.
        source: Rows to train with beside the target.
        sample_pixels: Two images as the network takes them ``(2, channels, height, width)``.

    Raises:
        CandidateError: If the checkpoint has no source head where one is needed, or takes no such images.
        ValueError: If the source's classes are not the head's where that is asked for.
    """
    numbers, notes = _head_numbers(candidate, recipe, source)
    keep = keeps_head(candidate, recipe, source)
    new = None
    if recipe.method in ("joint", "co-tuning") and source is not None and numbers is None:
        new = len(source.class_names)
    draw = torch.Generator().manual_seed(int(generator(recipe.seed, Purpose.HEADS).integers(2**62)))
    network = _runs(candidate, sample_pixels)
    try:
        model = TwoHeads(network, sample_pixels, n_target, n_source=new, keep_head=keep, generator=draw)
        _freeze_unused(model, sample_pixels)
    except CandidateError:
        raise
    except Exception as error:  # of a module that looks into its classifier, cannot be hooked, or records no gradients
        raise CandidateError(
            f"{candidate.name} cannot be trained with another classifier ({type(error).__name__}: {one_line(error)}). "
            "Let it end in a plain nn.Linear, called as a layer, where gradients are recorded."
        ) from error
    _check_finite(candidate, model)
    if keep and not model.has_kept_head:
        raise CandidateError(
            f"{candidate.name} has no source head, which {_who_needs_it(recipe)} goes on with. "
            "Take a checkpoint with a trained classifier, or leave that out."
        )
    if numbers is not None and source is not None and source.labels is not None:
        source = replace(source, labels=np.asarray(numbers, dtype=np.int64)[source.labels])
    if keep and _is_zero(model):
        notes = (*notes, f"{_NEW_HEAD}: {_who_needs_it(recipe)} goes on with it")
    return Built(model, source, notes)


def keeps_head(candidate: Candidate, recipe: Recipe, source: LabelledRows | None) -> bool:
    """Whether the checkpoint's own classifier goes on, or is thrown away.

    Raises:
        ValueError: If the source's classes are not the head's where that is asked for.
    """
    needs = {need for name in recipe.regularizers for need in REGULARIZERS[name].needs}
    numbers, _ = _head_numbers(candidate, recipe, source)
    return recipe.method == "co-tuning" or "kept_logits" in needs or numbers is not None


def _is_zero(model: TwoHeads) -> bool:
    """Whether the biases of the head that was kept are those of a new one."""
    biases = [t for name, t in model.source_head_tensors().items() if name.startswith("kept.") and t.ndim == 1]
    return bool(biases) and not any(bias.any() for bias in biases)


def _check_finite(candidate: Candidate, model: TwoHeads) -> None:
    for name, tensor in model.named_parameters():
        if not tensor.isfinite().all():
            raise CandidateError(f"{candidate.name} has weights that are not finite ({name}). Take another one.")


def _runs(candidate: Candidate, sample_pixels: Tensor) -> Network:
    network = candidate.load()
    try:
        with torch.no_grad():
            network(sample_pixels)
    except CandidateError:
        raise
    except Exception as error:  # each architecture refuses a size in its own way
        height, width = sample_pixels.shape[-2:]
        raise CandidateError(
            f"{candidate.name} cannot run on images of {height} x {width} pixels ({type(error).__name__}: {error}). "
            f"{_other_size(candidate)}"
        ) from error
    return network


def _other_size(candidate: Candidate) -> str:
    own = not isinstance(candidate.processor, Mapping) and not is_image_processor(candidate.processor)
    return "Let its transform give (3, height, width) of a size it takes." if own else "Pass another `image_size`."


def _who_needs_it(recipe: Recipe) -> str:
    if recipe.method == "co-tuning":
        return "Co-Tuning"
    kept = [name for name in recipe.regularizers if "kept_logits" in REGULARIZERS[name].needs]
    return ", ".join(kept) or "training on the source's classes"


def _head_numbers(
    candidate: Candidate, recipe: Recipe, source: LabelledRows | None
) -> tuple[Sequence[int] | None, tuple[str, ...]]:
    """Which outputs of the checkpoint's own head stand for the source's classes; None to start a new head."""
    if source is None or source.labels is None or recipe.method == "consistency" or recipe.source_head == "new":
        return None, ()
    names = candidate.class_names
    numbers = None if names is None else match_class_names(source.class_names, names)
    if numbers is not None:
        return numbers, (f"the source's {len(numbers):,} classes are trained on the checkpoint's own head",)
    if recipe.source_head == "kept":
        known = "has class names of its own" if names is not None else "has no class names"
        raise ValueError(
            f"`source_head` must be 'new' for {source.name!r}: {candidate.name} {known}, and not all of the source's "
            "classes are among them."
        )
    return None, ("a new source head was started: the source's classes were not found in the checkpoint's own head",)


def _freeze_unused(model: TwoHeads, sample_pixels: Tensor) -> None:
    """Take out of training what no output depends on: several processes would wait for its gradient for ever."""
    was_training = model.training
    model.eval()
    output = model(sample_pixels)
    sum(part.float().sum() for part in output if part is not None).backward()
    for parameter in model.parameters():
        if parameter.grad is None:
            parameter.requires_grad_(False)
        parameter.grad = None
    model.train(was_training)
