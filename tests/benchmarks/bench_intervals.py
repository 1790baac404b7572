"""Are the bootstrap intervals honest? Their width against the real spread of scores over many samples.

    python tests/benchmarks/bench_intervals.py [--dataset PATH] [--draws 100] [--only NAMES]

Takes one network's features of a whole data set, draws 25 images per class many times, and compares the
standard deviation of each score over the draws (corrected for drawing from a finite set) with the mean
standard deviation its bootstrap reports, and counts how often the 95 % interval holds the mean score. Takes all
metrics of the table that need features, source probabilities and labels only and no other candidates; those
without a closed-form influence get the delete-a-group one, as in ``rank_models``.
"""

import argparse

import numpy as np
import torch

from hf_zoosel import METRICS, embedded_models
from hf_zoosel.demo import handwritten_digits
from hf_zoosel.features import Runtime, Team, extract, open_store
from hf_zoosel.ranking import Resampler, interval, jackknife_influence
from hf_zoosel.tasks import load_task
from hf_zoosel.zoo import resolve

PER_CLASS = 25
SCORED = {
    name: metric
    for name, metric in METRICS.items()
    if "labels" in metric.needs
    and {"features", "source_probs", "labels"}.issuperset(metric.needs)
    and metric.over_zoo is None
}


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


def with_influence(metric, given, labels):
    """The score and each row's influence on it, as scoring/candidate.py has them."""
    if metric.influence is not None:
        score, influence = metric.influence(*given)
        return score, influence.numpy()

    def on_rows(rows):
        return metric.fn(*(part[torch.from_numpy(rows)] for part in given))

    return metric.fn(*given), jackknife_influence(on_rows, labels.numpy(), seed=0)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dataset", help="a path rank_models takes; scikit-learn's digits by default")
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--only", nargs="+", choices=list(SCORED), default=list(SCORED), metavar="NAME")
    arguments = parser.parse_args()
    task = load_task(arguments.dataset or handwritten_digits(), max_per_class=200)
    features = whole_features(task, embedded_models()[0])
    random = np.random.default_rng(0)
    rows_of = [np.flatnonzero(task.labels == label) for label in range(task.n_classes)]
    print(f"{task.name}: {len(task)} images, {arguments.draws} draws of {PER_CLASS} per class, {embedded_models()[0]}")
    found = {name: [] for name in arguments.only}
    for _ in range(arguments.draws):
        drawn = np.sort(np.concatenate([random.choice(rows, PER_CLASS, replace=False) for rows in rows_of]))
        kept, labels = torch.from_numpy(drawn), torch.from_numpy(task.labels[drawn])
        resampler = Resampler(labels.numpy(), 1000, 0)
        parts = {"features": features.features[kept], "labels": labels}
        parts["source_probs"] = features.parts["source_logits"][kept].softmax(dim=1)
        for name in arguments.only:
            score, influence = with_influence(SCORED[name], [parts[need] for need in SCORED[name].needs], labels)
            replicates = resampler.replicates(score, influence)
            found[name].append((score, replicates.std(), *interval(replicates)))
    share = PER_CLASS * task.n_classes / len(task)
    for name, rows in found.items():
        score, width, low, high = np.array(rows).T
        real = score.std(ddof=1) / np.sqrt(1 - share)
        held = ((low <= score.mean()) & (score.mean() <= high)).mean()
        widths = f"real sd {real:.4f}  bootstrap sd {width.mean():.4f}  ratio {width.mean() / real:.2f}"
        print(f"  {name:9s} {widths}  held {held:.2f}")


if __name__ == "__main__":
    main()
