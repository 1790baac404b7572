"""Are the bootstrap intervals honest? Their width against the real spread of scores over many samples.

    python tests/benchmarks/bench_intervals.py [--dataset PATH] [--draws 100]

Takes one network's features of a whole data set, draws 25 images per class many times, and compares the
standard deviation of each score over the draws (corrected for drawing from a finite set) with the mean
standard deviation its bootstrap reports, and counts how often the 95 % interval holds the mean score.
"""

import argparse

import numpy as np
import torch

from hf_zoosel import METRICS, embedded_models
from hf_zoosel.demo import handwritten_digits
from hf_zoosel.features import Runtime, Team, extract, open_store
from hf_zoosel.ranking import Resampler, interval
from hf_zoosel.tasks import load_task
from hf_zoosel.zoo import resolve

PER_CLASS = 25


def whole_features(task, model):
    cpu = torch.device("cpu")
    with open_store(True) as store:
        ((_, features),) = extract(
            [resolve(model, model)],
            task,
            store=store,
            runtime=Runtime(cpu, torch.float32),
            team=Team(0, 1, cpu),
            progress=True,
        )
    return features


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dataset", help="a path rank_models takes; scikit-learn's digits by default")
    parser.add_argument("--draws", type=int, default=100)
    arguments = parser.parse_args()
    task = load_task(arguments.dataset or handwritten_digits(), max_per_class=200)
    features = whole_features(task, embedded_models()[0])
    random = np.random.default_rng(0)
    rows_of = [np.flatnonzero(task.labels == label) for label in range(task.n_classes)]
    print(f"{task.name}: {len(task)} images, {arguments.draws} draws of {PER_CLASS} per class, {embedded_models()[0]}")
    found = {name: [] for name in METRICS}
    for _ in range(arguments.draws):
        drawn = np.sort(np.concatenate([random.choice(rows, PER_CLASS, replace=False) for rows in rows_of]))
        kept, labels = torch.from_numpy(drawn), torch.from_numpy(task.labels[drawn])
        resampler = Resampler(labels.numpy(), 1000, 0)
        for name, metric in METRICS.items():
            score, influence = metric.influence(getattr(features, metric.needs[0])[kept], labels)
            replicates = resampler.replicates(score, influence.numpy())
            found[name].append((score, replicates.std(), *interval(replicates)))
    share = PER_CLASS * task.n_classes / len(task)
    for name, rows in found.items():
        score, width, low, high = np.array(rows).T
        real = score.std(ddof=1) / np.sqrt(1 - share)
        held = ((low <= score.mean()) & (score.mean() <= high)).mean()
        widths = f"real sd {real:.4f}  bootstrap sd {width.mean():.4f}  ratio {width.mean() / real:.2f}"
        print(f"  {name:7s} {widths}  held {held:.2f}")


if __name__ == "__main__":
    main()
