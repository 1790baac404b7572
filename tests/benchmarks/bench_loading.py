"""Reading and augmenting the images of training against the training step itself, in one run.

    python -m tests.benchmarks.bench_loading [--dataset PATH] [--batch 32] [--batches 10] [--workers 1] [--rounds 3]

Loading: what ``MixedBatches`` makes for tf_efficientnet_lite0 (224 pixels), in this process and in workers. Step:
forward and backward pass and SGD on ready pixels. Together: the step on batches as they come, and the share of its
time spent waiting for them. Rounds alternate; figures are medians.
"""

import argparse
import statistics
import time

import torch

from hf_zoosel.demo import handwritten_digits
from hf_zoosel.training.augment import Augmentation, make_views
from hf_zoosel.training.loading import MixedBatches, Workers
from hf_zoosel.training.plan import TargetPlan
from hf_zoosel.training.reading import Stream
from hf_zoosel.training.streams import open_target
from hf_zoosel.zoo import embedded_models, resolve

AUGMENTATIONS = {
    "none": Augmentation(kind="none"),
    "crop, flip": Augmentation(),
    "crop, flip, RandAugment": Augmentation(auto_augment="rand-m9-mstd0.5"),
}


def loader(rows, view, arguments, workers):
    stream = Stream(rows, TargetPlan(len(rows), arguments.batch, 0), view)
    return MixedBatches(stream, seed=0, steps=range(arguments.batches + 1), workers=Workers(workers))


def loading_seconds(rows, view, arguments, workers):
    """Seconds a batch, after the first, which starts the workers."""
    with loader(rows, view, arguments, workers) as batches:
        next(batches)
        started = time.perf_counter()
        for _ in batches:
            pass
        return (time.perf_counter() - started) / arguments.batches


def trainer(candidate, k):
    module = candidate.load().module.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-4, momentum=0.9, nesterov=True)

    def step(pixels, labels):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(pixels)[:, :k], labels).backward()
        optimizer.step()

    return step


def step_seconds(step, pixels, labels, n):
    step(pixels, labels)
    started = time.perf_counter()
    for _ in range(n):
        step(pixels, labels)
    return (time.perf_counter() - started) / n


def together(rows, view, arguments, step, preprocess):
    """Seconds a step on batches as they come, and the share of waiting."""
    with loader(rows, view, arguments, arguments.workers) as batches:
        next(batches)
        waited, started = batches.waited, time.perf_counter()
        for batch in batches:
            step(preprocess.batch(batch.pixels), batch.labels)
        seconds = time.perf_counter() - started
        return seconds / arguments.batches, (batches.waited - waited) / seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", help="a path or Hub id; scikit-learn's digits by default")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    candidate = resolve(embedded_models()[0], embedded_models()[0])
    rows = open_target(arguments.dataset or handwritten_digits())
    size = rows.images.encoded([0])[0].decode().size
    print(f"{candidate.name}, {rows.name} of {size} pixels, batches of {arguments.batch}")
    views = {name: make_views(candidate.preprocess, options) for name, options in AUGMENTATIONS.items()}
    step = trainer(candidate, len(rows.class_names))
    with loader(rows, views["none"].train, arguments, 0) as batches:
        ready = next(batches)
    pixels = candidate.preprocess.batch(ready.pixels)
    bare = [step_seconds(step, pixels, ready.labels, arguments.batches) for _ in range(arguments.rounds)]
    print(f"step on ready pixels: {arguments.batch / statistics.median(bare):.0f} images/s")
    for name, view in views.items():
        alone, apart, whole, waiting, beside = [], [], [], [], []
        for _ in range(arguments.rounds):
            alone.append(loading_seconds(rows, view.train, arguments, 0))
            apart.append(loading_seconds(rows, view.train, arguments, arguments.workers))
            beside.append(step_seconds(step, pixels, ready.labels, arguments.batches))
            seconds, share = together(rows, view.train, arguments, step, candidate.preprocess)
            whole.append(seconds)
            waiting.append(share)
        middle = [statistics.median(values) for values in (alone, apart, beside, whole, waiting)]
        print(
            f"{name}: {arguments.batch / middle[0]:.0f} images/s in this process, {arguments.batch / middle[1]:.0f} "
            f"with {arguments.workers} workers; loading / step {middle[0] / middle[2]:.3f}; "
            f"step with loading / bare {middle[3] / middle[2]:.3f}, waiting {middle[4]:.1%}"
        )


if __name__ == "__main__":
    main()
