"""The statistics of a source data set against the bare forward passes of the same network, in one run.

    python -m tests.benchmarks.bench_statistics [--dataset PATH] [--images 1000] [--rounds 3] [--model NAME] [--stream]

Bare: channels-last float32 tensors already preprocessed and in memory, weights loaded, inference mode, the best of
several batch sizes. Ours: everything else included - reading, decoding, preprocessing, loading, class sums, saving.
Rounds alternate; the ratio is of the medians. Prints where the rest goes, and what a second call takes.
"""

import argparse
import cProfile
import pstats
import statistics
import tempfile
import time
from pathlib import Path

import torch
from datasets import concatenate_datasets

from hf_zoosel.demo import handwritten_digits
from hf_zoosel.features import Runtime, Team
from hf_zoosel.features.allocator import freed_memory_kept
from hf_zoosel.features.statistics import source_statistics
from hf_zoosel.tasks.opening import open_split
from hf_zoosel.tasks.rows import open_rows
from hf_zoosel.zoo import embedded_models, resolve
from tests.benchmarks.bench_rank_models import bare_seconds, batch_sizes, ready

CPU = torch.device("cpu")
PARTS = {
    "decode + preprocess": ("wait", "row_pass"),
    "size of a block": ("bytes_of_a_row", "pixels"),
    "load the network": ("_load", "embedded"),
    "resolve the candidate": ("resolve", "resolve"),
    "digest of the weights": ("weights_digest", "network"),
    "forward passes": ("run_network", "forward"),
    "class sums": ("add", "half_pass"),
    "save": ("save", "half_pass"),
    "open rows": ("open_rows", "rows"),
    "read labels": ("labels_at", "rows"),
}


def first(data, n):
    """The first ``n`` rows of a data set, or of as many copies of it as that takes."""
    whole = concatenate_datasets([data] * -(-n // len(data)))
    return whole.select(range(n))


def ours(data, model, folder):
    started = time.perf_counter()
    candidate = resolve(model, model)
    runtime, team = Runtime(CPU, torch.float32, workers=torch.get_num_threads()), Team(0, 1, CPU)
    source_statistics(candidate, open_rows(data), runtime=runtime, team=team, folder=folder, progress=False)
    return time.perf_counter() - started


def where_the_time_goes(data, model):
    profile = cProfile.Profile()
    with tempfile.TemporaryDirectory() as folder:
        profile.enable()
        ours(data, model, Path(folder))
        profile.disable()
    stats = pstats.Stats(profile).stats
    total = max(row[3] for row in stats.values())
    for part, (function, module) in PARTS.items():
        seconds = sum(row[3] for (file, _, name), row in stats.items() if name == function and f"{module}.py" in file)
        print(f"  {part:22s} {seconds:7.2f} s  {seconds / total:6.1%}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dataset", help="a path or Hub id; scikit-learn's digits by default")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default=embedded_models()[0])
    parser.add_argument("--stream", action="store_true", help="read it as an IterableDataset")
    arguments = parser.parse_args()
    opened = open_split(arguments.dataset, None).data if arguments.dataset else handwritten_digits()
    data = first(opened, arguments.images)
    shown = data.to_iterable_dataset() if arguments.stream else data
    (chunk,) = open_rows(data).chunks(len(data))
    images = [encoded.decode() for encoded in chunk.images.encoded(range(len(data)))]
    module, pixels = ready(arguments.model, images)
    sizes = batch_sizes(module, pixels)
    print(
        f"{arguments.model}, {len(data)} images of {images[0].size}, {torch.get_num_threads()} threads, float32, "
        f"batch sizes {sizes}"
    )
    seconds: dict[str, list[float]] = {"bare": [], "ours": [], "again": []}
    for _ in range(arguments.rounds):
        seconds["bare"].append(bare_seconds(module, pixels, sizes))
        with tempfile.TemporaryDirectory() as folder:
            seconds["ours"].append(ours(shown, arguments.model, Path(folder)))
            seconds["again"].append(ours(shown, arguments.model, Path(folder)))
    median = {name: statistics.median(values) for name, values in seconds.items()}
    for name, values in seconds.items():
        print(f"  {name:6s} " + "  ".join(f"{value:7.2f} s" for value in values))
    print(f"statistics / bare forward passes: {median['ours'] / median['bare']:.3f}   (goal: at most 1.10)")
    print(f"second call / first: {median['again'] / median['ours']:.4f}")
    del pixels, images
    where_the_time_goes(shown, arguments.model)


if __name__ == "__main__":
    with freed_memory_kept():  # as the pass does: the bare passes get the same allocator
        main()
