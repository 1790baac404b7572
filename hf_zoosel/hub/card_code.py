"""The Python of a model card: how to load the model, and how to train it again."""

import json
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from hf_zoosel.hub.card_facts import CardFacts, is_hub_id
from hf_zoosel.hub.markdown import one_line

_TIMM = """import timm
import torch
from PIL import Image

model = timm.create_model("{model}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
with torch.inference_mode():
    logits = model(transform(Image.open("image.jpg").convert("RGB"))[None])
print(model.pretrained_cfg["label_names"][logits.argmax()])"""

_PIPELINE = """from transformers import pipeline

classify = pipeline("image-classification", model="{model}")
print(classify("image.jpg"))"""


_TENSORS = """from safetensors.torch import load_file

module = ...  # {architecture} of {n} classes, built as it was for the training
module.load_state_dict(load_file({file}))"""


_YOUR_COPY = "  # a name, not an id of the Hub: put the data set in its place"


def loading_code(facts: CardFacts) -> dict[str, str]:
    """Library -> Python that loads the model and names the class of ``image.jpg``.

    Without a Hub id it loads from the folder it is run in. A module of a person's own gets its tensors back.
    """
    on_hub = is_hub_id(facts.name, owned=True)
    if facts.library_name is None:
        return {} if facts.architecture is None else {"safetensors": _tensors_code(facts, on_hub=on_hub)}
    blocks = {"transformers": _PIPELINE.format(model=facts.name if on_hub else ".")}
    if facts.library_name == "timm":  # transformers loads it too
        return {"timm": _TIMM.format(model=f"hf-hub:{facts.name}" if on_hub else "local-dir:."), **blocks}
    return blocks


def _tensors_code(facts: CardFacts, *, on_hub: bool) -> str:
    weights = _python("model.safetensors")
    file = f"hf_hub_download({_python(facts.name)}, {weights})" if on_hub else weights
    code = _TENSORS.format(architecture=one_line(facts.architecture or ""), n=len(facts.class_names), file=file)
    return f"from huggingface_hub import hf_hub_download\n{code}" if on_hub else code


def training_code(facts: CardFacts) -> str | None:
    """Python that trains the model again, as far as the facts say how; None where the base is not known."""
    if facts.base_model is None:
        return None
    pinned = facts.base_on_hub is not None and facts.base_revision is not None
    lines = ["import hf_zoosel"]
    if facts.recipe:
        lines.append(f"from hf_zoosel.training import {_imports(facts.recipe)}")
    lines += [
        "",
        f"model = {_python(f'{facts.base_model}@{facts.base_revision}' if pinned else public(facts.base_model))}",
        f"data = {_python(_data_name(facts))}{'' if facts.dataset_id else _YOUR_COPY}",
    ]
    options = []
    given = {"method": facts.method, **facts.recipe, "seed": facts.recipe.get("seed", facts.seed)}
    if facts.source is not None:
        lines += list(_source_lines(facts))
        options.append("source=source")
        if facts.source_method is not None:
            options.append(f"source_data={_python(public(facts.source))}")
    if facts.recipe:
        lines += ["recipe = Recipe(", *(f"    {one}," for one in _keywords(given)), ")"]
        options.append("recipe=recipe")
    else:
        options += _keywords(given)
    options += [f"{name}={_python(value)}" for name, value in facts.arguments.items()]
    return "\n".join([*lines, f"result = hf_zoosel.finetune({', '.join(['model', 'data', *options])})"])


def _data_name(facts: CardFacts) -> str:
    """What the data set is loaded by: its Hub id, with the configuration and the revision it was given with."""
    name, known = public(facts.dataset), facts.dataset_id
    return name if known is None or name.startswith((f"{known}:", f"{known}@")) else known


def _imports(recipe: Mapping[str, Any]) -> str:
    return "Augmentation, Recipe" if isinstance(recipe.get("augmentation"), Mapping) else "Recipe"


def _source_lines(facts: CardFacts) -> Iterator[str]:
    assert facts.source is not None
    if facts.source_method is None:
        yield f"source = {_python(public(facts.source))}"
    else:
        yield 'source = hf_zoosel.SourceSelection.load("selection.json")  # it lies beside this card'


def _keywords(given: Mapping[str, Any]) -> Iterator[str]:
    for name, value in given.items():
        if value is None or not name.isidentifier():
            continue
        if name == "augmentation" and isinstance(value, Mapping):
            yield f"augmentation=Augmentation({', '.join(_keywords(value))})"
        else:
            yield f"{name}={_python(value)}"


def _python(value: Any) -> str:
    """A value as Python reads it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_python(str(name))}: {_python(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_python, value)) + "]"
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    return json.dumps(one_line(str(value)), ensure_ascii=False)


def public(name: str) -> str:
    """The name without the folders of somebody's machine.

    Example:
        >>> public("/home/me/data/birds"), public("timm/resnet18"), public("birds")
        ('birds', 'timm/resnet18', 'birds')
    """
    path = PurePath(name)
    private = path.is_absolute() or name.startswith(("~", "."))
    last = one_line(path.name)
    return last if private and last not in ("", "..") else one_line(name)
