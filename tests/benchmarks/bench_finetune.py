"""Joint training against a bare PyTorch loop over ready tensors of the same mixed batch, in one run.

    python -m tests.benchmarks.bench_finetune [--dataset PATH] [--image-size 96] [--steps 12] [--rounds 3]

Bare: pixels already decoded, augmented, normalised and in memory; the network with both heads, cross-entropies, SGD.
Ours: everything else included - decoding, augmentation in a worker, normalisation, books, checks. Rounds alternate,
the ratio is of the medians, and the time the loop waits for images is printed. Memory is the peak of a process of its
own: joint training, and plain training at the same number of images a step.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from hf_zoosel._torchvision import mend_torchvision
from hf_zoosel.demo import handwritten_digits
from hf_zoosel.features import join_team
from hf_zoosel.features.allocator import freed_memory_kept
from hf_zoosel.training.loop import Loop, make_optimizer, train
from hf_zoosel.training.materials import Columns, Materials, open_source_rows
from hf_zoosel.training.objective import Objective
from hf_zoosel.training.recipe import Recipe
from hf_zoosel.training.run import prepare
from hf_zoosel.training.target import open_target_rows
from hf_zoosel.zoo import resolve
from hf_zoosel.zoo.image_size import with_image_size

MODEL = "embedded:tf_efficientnet_lite0"
BATCH = 16


def materials_of(arguments, *, joint):
    """The digits or a data set, mixed with itself as the source; plain training has twice the batch."""
    data = arguments.dataset or handwritten_digits()
    recipe = Recipe(method="joint" if joint else "plain", batch_size=BATCH if joint else 2 * BATCH, epochs=1)
    n = arguments.steps * recipe.batch_size
    train_rows, _, _ = open_target_rows(data, Columns(), validation=None, test=None, max_per_class=None, seed=0)
    some = torch.randperm(len(train_rows), generator=torch.Generator().manual_seed(0))[:n].sort().values.numpy()
    source, _ = open_source_rows(data if joint else None, Columns(), recipe)
    candidate = with_image_size(resolve(MODEL, MODEL), arguments.image_size)
    return Materials(candidate, recipe, train_rows.take(some), source=source)


def prepared(materials, workers):
    return prepare(materials, join_team("cpu"), workers)[:2]


def bare_seconds(materials, steps):
    model, feed = prepared(materials, 0)
    optimizer = make_optimizer(model, materials.recipe)
    with feed.batches(0, 1) as batches:
        rows = feed.on_device(next(batches))
    model.train()
    for timed in (False, True):
        started = time.perf_counter()
        for _ in range(steps if timed else 2):
            optimizer.zero_grad()
            output = model(rows.pixels)
            loss = cross_entropy(output.target[: rows.n_target], rows.labels[: rows.n_target])
            if len(rows.pixels) > rows.n_target:
                loss = loss + 0.3 * cross_entropy(output.source[rows.n_target :], rows.labels[rows.n_target :])
            loss.backward()
            optimizer.step()
    return time.perf_counter() - started


def our_seconds(materials, workers):
    """Seconds of the epoch, as the loop counts them, and of these the seconds it waited for images."""
    model, feed = prepared(materials, workers)
    with tempfile.TemporaryDirectory() as folder:
        team = join_team("cpu")
        loop = Loop(model, materials.recipe, feed, Objective(materials.recipe), team, Path(folder), "", shown=False)
        (row,) = train(loop).history
    return row["seconds"], row["waited"]


def peak(arguments, kind):
    """Peak memory of a process that trains for three steps, in MB."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_finetune", "--peak", kind, "--steps", "3"]
    command += ["--image-size", str(arguments.image_size)]
    command += ["--dataset", arguments.dataset] if arguments.dataset else []
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dataset", help="a path finetune takes; scikit-learn's digits by default")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, help="processes that load; chosen by default")
    parser.add_argument("--peak", choices=["joint", "plain"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        our_seconds(materials_of(arguments, joint=arguments.peak == "joint"), 0)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    materials = materials_of(arguments, joint=True)
    bare, ours, waited = [], [], []
    for _ in range(arguments.rounds):
        bare.append(bare_seconds(materials, arguments.steps))
        seconds, waiting = our_seconds(materials, arguments.workers)
        ours.append(seconds)
        waited.append(waiting)
    images = 2 * BATCH * arguments.steps
    print(f"{MODEL}, {arguments.image_size} px, {BATCH} + {BATCH} images a step, {torch.get_num_threads()} threads")
    for name, values in {"bare": bare, "ours": ours, "waited": waited}.items():
        print(f"  {name:6s} " + "  ".join(f"{value:7.2f} s" for value in values))
    ratio = statistics.median(bare) / statistics.median(ours)
    rate = images / statistics.median(ours)
    print(f"joint training: {rate:.1f} images a second; / bare loop: {ratio:.3f} (goal 0.95)")
    print(f"waited for images: {statistics.median(waited) / statistics.median(ours):.1%} of the time")
    joint, plain = peak(arguments, "joint"), peak(arguments, "plain")
    print(
        f"peak memory: joint {joint:.0f} MB, plain at the same batch {plain:.0f} MB: {joint / plain:.3f} (goal 1.10)"
    )


if __name__ == "__main__":
    mend_torchvision()
    with freed_memory_kept():
        main()
