"""Every choice of a fine-tuning run in one frozen record, checked once."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

import numpy as np

from hf_zoosel.objectives import REGULARIZERS
from hf_zoosel.ranking.mapping import FrozenMapping
from hf_zoosel.ranking.settings import read_settings
from hf_zoosel.training.augment import Augmentation

Method = Literal["plain", "joint", "co-tuning", "consistency"]
Schedule = Literal["step", "cosine", "constant"]
Norms = Literal["joint", "separate", "frozen"]
SourceHead = Literal["auto", "kept", "new"]
Precision = Literal["no", "bf16", "fp16"]


@dataclass(frozen=True)
class Recipe:
    """How a model is fine-tuned.

    The defaults are those of Liu et al. 2022 (their published scripts) where they name one, at a batch and a length
    for small data sets.

    Attributes:
        method: ``"plain"``; ``"joint"``, cross-entropy on labelled source rows beside the target's;
            ``"co-tuning"``, the checkpoint's own head is trained on p(source class | target class) too, and jointly
            where there is a source; ``"consistency"``, source rows without labels, pseudo-labelled by the target head.
        epochs: Passes over the target.
        batch_size: Target rows a step, over all processes.
        learning_rate: Of the backbone and a kept source head.
        head_rate: New heads learn at this many times the rate.
        schedule: ``"step"`` divides the rate by 10 at 60 % and at 80 % of the steps; ``"cosine"`` goes to zero.
        warmup: Share of the steps in which the rate rises linearly from zero.
        momentum: Of SGD with Nesterov's momentum.
        weight_decay: L2 penalty on every trained parameter.
        source_weight: Weight of the source's loss.
        source_ratio: Source rows a step, as a multiple of the target's.
        source_head: Whether joint training goes on with the checkpoint's own head, starts a new one, or takes its own
            where all source classes are found in it.
        source_sampling: ``"uniform"``, or ``"mass"`` to draw source rows in proportion to the transport mass.
        source_decay: Whether the weight of the source falls linearly to zero over the run.
        batch_norm: ``"joint"``, both streams in one forward pass; ``"separate"``, a pass each, and only the target's
            moves the running statistics; ``"frozen"``, the checkpoint's running statistics throughout.
        co_tuning_weight: Weight of the Co-Tuning loss.
        relationship: How p(source class | target class) is learned: ``"reverse"``, ``"direct"``, or the reverse way
            where ten images a class are held out to calibrate it on and else the direct one.
        temperature: What the checkpoint's own logits are divided by before p(source | target) is learned from them;
            ``hf_zoosel.objectives.fit_temperature`` fits it on the source's validation rows.
        regularizers: Names in ``hf_zoosel.objectives.REGULARIZERS`` and their strengths.
        augmentation: What is done to training images.
        image_size: Side of the images in pixels; the checkpoint's own if None.
        label_smoothing: Of the target's cross-entropy.
        accumulation: Forward passes a step. It is doubled when memory runs out, until a step fits.
        max_grad_norm: Gradients are clipped to this norm; not at all if None.
        mixed_precision: ``"no"``, ``"bf16"`` or ``"fp16"``; if None what ``accelerate launch`` was
            configured for (``ACCELERATE_MIXED_PRECISION``), and float32 without it.
        compile: Whether to compile the model with ``torch.compile``.
        refit: Whether the target head is fitted anew at the end, by logistic regression on the target's features.
        patience: Epochs without a better validation accuracy after which training stops; the best epoch's weights are
            then kept. Without it the last epoch's are.
        seed: Of everything random.

    Raises:
        ValueError: If a number is out of range or a name unknown.

    Example:
        >>> Recipe(epochs=5, regularizers={"l2_sp": 0.01}).changed(method="joint").method
        'joint'
    """

    method: Method = "plain"
    epochs: int = 30
    batch_size: int = 32
    learning_rate: float = 0.01
    head_rate: float = 10.0
    schedule: Schedule = "step"
    warmup: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 1e-4
    source_weight: float = 0.3
    source_ratio: float = 1.0
    source_head: SourceHead = "auto"
    source_sampling: Literal["uniform", "mass"] = "uniform"
    source_decay: bool = False
    batch_norm: Norms = "joint"
    co_tuning_weight: float = 2.3
    relationship: Literal["auto", "reverse", "direct"] = "auto"
    temperature: float = 1.0
    regularizers: Mapping[str, float] = field(default_factory=FrozenMapping)
    augmentation: Augmentation = field(default_factory=Augmentation)
    image_size: int | None = None
    label_smoothing: float = 0.0
    accumulation: int = 1
    max_grad_norm: float | None = None
    mixed_precision: Precision | None = None
    compile: bool = False
    refit: bool = False
    patience: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for one in fields(self):
            if isinstance(value := getattr(self, one.name), np.generic):
                object.__setattr__(self, one.name, value.item())
        if not isinstance(self.regularizers, Mapping):
            raise ValueError(f"`regularizers` must map names to strengths, got {self.regularizers!r}.")
        strengths = {name: one.item() if hasattr(one, "item") else one for name, one in self.regularizers.items()}
        object.__setattr__(self, "regularizers", FrozenMapping(strengths))
        _check_choices(self)
        _check_numbers(self)
        for name, strength in self.regularizers.items():
            if name not in REGULARIZERS:
                raise ValueError(
                    f"`regularizers` must be names out of {sorted(REGULARIZERS)}, got {name!r}. Correct it."
                )
            is_number = isinstance(strength, int | float) and not isinstance(strength, bool)
            if not (is_number and math.isfinite(strength) and strength > 0):
                raise ValueError(f"`regularizers` must have strengths above 0, got {strength!r} for {name!r}.")

        if "stoch_norm" in self.regularizers and self.batch_norm == "frozen":
            raise ValueError(
                "`regularizers` must be without 'stoch_norm' where `batch_norm` is 'frozen': there is nothing to "
                "choose. Leave one out."
            )

    def changed(self, **changes: Any) -> "Recipe":
        """A copy with some fields changed; checked again."""
        return replace(self, **changes)

    @staticmethod
    def from_settings(settings: Iterable[str]) -> "Recipe":
        """A recipe from ``name=value`` texts, as a command line gives them.

        Raises:
            ValueError: If a name is no field, or a value does not fit it.

        Example:
            >>> Recipe.from_settings(["batch_norm=frozen", "refit=true", "augmentation.scale=[0.3, 1]"]).batch_norm
            'frozen'
        """
        return Recipe()._with(read_settings(settings, "recipe"))

    def _with(self, values: Mapping[str, Any]) -> "Recipe":
        inner = {name.partition(".")[2]: value for name, value in values.items() if name.startswith("augmentation.")}
        outer = {name: value for name, value in values.items() if not name.startswith("augmentation.")}
        known = {one.name for one in fields(self)} - {"augmentation"}
        known |= {f"augmentation.{one.name}" for one in fields(Augmentation)}
        for name in values:
            if name not in known:
                raise ValueError(f"`recipe` must have names out of {', '.join(sorted(known))}, got {name!r}.")
        if inner:
            outer["augmentation"] = replace(self.augmentation, **inner)
        return replace(self, **outer)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {one.name: _plain(getattr(self, one.name)) for one in fields(self)}

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that differ whenever a choice does."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def rate_at(self, step: int, total: int) -> float:
        """What the learning rates are multiplied by at a step of ``total``; a function of the step alone."""
        warm = round(self.warmup * total)
        if step < warm:
            return (step + 1) / warm
        done = (step - warm) / max(1, total - warm)
        if self.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        if self.schedule == "step":
            return float(0.1 ** ((done >= 0.6) + (done >= 0.8)))
        return 1.0

    def source_weight_at(self, step: int, total: int) -> float:
        """The weight of the source's loss at a step of ``total``."""
        return self.source_weight * (1 - step / total) if self.source_decay else self.source_weight


def _plain(value: Any) -> Any:
    if isinstance(value, Augmentation):
        return {name: list(item) if isinstance(item, tuple) else item for name, item in asdict(value).items()}
    return dict(value) if isinstance(value, Mapping) else value


def _check_choices(recipe: Recipe) -> None:
    choices: dict[str, tuple[object, ...]] = {
        "method": get_args(Method),
        "schedule": get_args(Schedule),
        "source_head": get_args(SourceHead),
        "source_sampling": ("uniform", "mass"),
        "batch_norm": get_args(Norms),
        "relationship": ("auto", "reverse", "direct"),
        "mixed_precision": (None, *get_args(Precision)),
    }
    for name, allowed in choices.items():
        if getattr(recipe, name) not in allowed:
            raise ValueError(f"`{name}` must be one of {list(allowed)}, got {getattr(recipe, name)!r}. Choose one.")
    for name in ("source_decay", "compile", "refit"):
        if not isinstance(getattr(recipe, name), bool):
            raise ValueError(f"`{name}` must be True or False, got {getattr(recipe, name)!r}.")
    if not isinstance(recipe.augmentation, Augmentation):
        raise ValueError(f"`augmentation` must be an Augmentation, got {recipe.augmentation!r}. Make one.")


_LEAST = {"epochs": 1, "batch_size": 2, "accumulation": 1, "image_size": 8, "patience": 1, "seed": 0}
_POSITIVE = ("temperature", "learning_rate", "head_rate", "source_ratio", "max_grad_norm")
_NOT_NEGATIVE = ("momentum", "weight_decay", "source_weight", "co_tuning_weight", "warmup", "label_smoothing")


def _check_numbers(recipe: Recipe) -> None:
    for name, least in _LEAST.items():
        value = getattr(recipe, name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise ValueError(f"`{name}` must be a whole number of at least {least}, got {value!r}.")
    for name in (*_POSITIVE, *_NOT_NEGATIVE):
        value = getattr(recipe, name)
        if value is None and name == "max_grad_norm":
            continue
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise ValueError(f"`{name}` must be a finite number, got {value!r}.")
        if value < 0 or (value == 0 and name in _POSITIVE):
            raise ValueError(f"`{name}` must be {'above 0' if name in _POSITIVE else 'at least 0'}, got {value}.")
    for name in ("warmup", "label_smoothing", "momentum"):
        if getattr(recipe, name) >= 1:
            raise ValueError(f"`{name}` must be below 1, got {getattr(recipe, name)}.")
