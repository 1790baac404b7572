"""A small network trained on the target alone, the reference of representational similarity analysis."""

import hashlib
import json
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from hf_zoosel.tasks import ImageError, Task
from hf_zoosel.zoo import Candidate, Network, Preprocess
from hf_zoosel.zoo.network import moved_to
from hf_zoosel.zoo.preprocess import digest

_READ_AT_ONCE = 64


@dataclass(frozen=True)
class Recipe:
    """How the reference network is built and trained.

    The schedule is that of Deshpande et al., 2021, Sections 4.1 and 4.3 (30 epochs, SGD with Nesterov momentum
    0.9, rate 0.005 divided by 10 at epochs 15 and 25, weight decay 1e-4, batch 32). They train a ResNet-18 at
    224 pixels; the default here is a smaller residual network at 64 pixels, which a CPU trains in a minute or two.

    Attributes:
        architecture: A timm name; the weights are drawn at random.
        size: Side of the square images, in pixels.
        epochs: Passes over the images.
        rate: First learning rate.
        seed: Of weights, order and flips.
    """

    architecture: str = "resnet10t"
    size: int = 64
    epochs: int = 30
    rate: float = 0.005
    seed: int = 0


def trained_on(task: Task, recipe: Recipe | None = None, device: torch.device | None = None) -> Candidate:
    """A small network that is trained on the task's images when it is loaded.

    It can be extracted like any candidate; its revision is the content it is trained on and the recipe, so that
    cached features spare the training.
    """
    recipe = recipe or Recipe()
    hasher = hashlib.blake2b(json.dumps(vars(recipe), sort_keys=True).encode(), digest_size=16)
    hasher.update(task.labels.tobytes())
    for start in range(0, len(task), _READ_AT_ONCE):
        some = range(start, min(start + _READ_AT_ONCE, len(task)))
        hasher.update(b"".join(image.digest for image in task.images.encoded(some)))
    preprocess = Preprocess(digest("square", recipe.size), partial(_square, recipe.size), (0.5,) * 3, (0.25,) * 3)
    architecture = f"{recipe.architecture} trained on the task"
    return Candidate(
        "reference",
        hasher.hexdigest(),
        architecture,
        preprocess,
        partial(_train, task, recipe, preprocess, device or torch.device("cpu")),
    )


def _square(size: int, image: object) -> np.ndarray:
    from PIL import Image

    assert isinstance(image, Image.Image)
    return np.array(image.resize((size, size), Image.Resampling.BILINEAR))  # its own: PIL's is read-only


def _train(task: Task, recipe: Recipe, preprocess: Preprocess, device: torch.device) -> Network:
    import timm

    pixels, labels = _pixels(task, preprocess)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.default_generator.manual_seed(recipe.seed)  # torch.manual_seed would seed the caller's GPUs too
        module = timm.create_model(recipe.architecture, num_classes=task.n_classes)
        moved_to(module.train(), device, channels_last=True)
        optimizer = torch.optim.SGD(module.parameters(), recipe.rate, momentum=0.9, weight_decay=1e-4, nesterov=True)
        milestones = [recipe.epochs // 2, recipe.epochs * 5 // 6]
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones)
        for _ in range(recipe.epochs):
            for rows in torch.randperm(len(labels)).split(32):
                _step(module, preprocess.batch(pixels[rows].to(device)), labels[rows].to(device), optimizer)
            schedule.step()
    return Network(module.cpu())


def _step(module: nn.Module, batch: Tensor, labels: Tensor, optimizer: torch.optim.Optimizer) -> None:
    if len(batch) < 2:  # batch normalisation knows no variance of one
        return
    if torch.rand(()) < 0.5:
        batch = batch.flip(-1)
    loss = nn.functional.cross_entropy(module(batch), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _pixels(task: Task, preprocess: Preprocess) -> tuple[Tensor, Tensor]:
    """All readable images as 8-bit pixels ``(n, size, size, 3)``, and their labels."""
    pixels, rows = [], []
    for start in range(0, len(task), _READ_AT_ONCE):
        some = range(start, min(start + _READ_AT_ONCE, len(task)))
        for row, encoded in zip(some, task.images.encoded(some), strict=True):
            try:
                pixels.append(preprocess.pixels(encoded.decode()))
            except ImageError:
                continue
            rows.append(row)
    return torch.from_numpy(np.stack(pixels)), torch.from_numpy(task.labels[rows].copy())
