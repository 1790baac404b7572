"""A metric through evaluate: arrays by our adapter, and nested lists as evaluate itself carries vectors.

python tests/benchmarks/bench_evaluate.py
"""

import tempfile
import time

import hf_zoosel.hub  # noqa: F401  # before evaluate: mends a torchvision that does not fit torch

import evaluate  # isort: skip
import numpy as np
import torch
from datasets import Features, Sequence, Value

from hf_zoosel.hub.evaluate_adapter import TransferabilityMetric
from hf_zoosel.metrics import leep

N = 5000


class Leep(TransferabilityMetric):
    metric_name = "leep"


class LeepByLists(evaluate.Metric):
    """The same metric as evaluate's documentation has one write it."""

    def _info(self):
        columns = {"source_probs": Sequence(Value("float64")), "labels": Value("int64")}
        return evaluate.MetricInfo(description="", citation="", features=Features(columns))

    def _compute(self, source_probs, labels):
        return {"leep": leep(torch.tensor(source_probs, dtype=torch.float64), torch.tensor(labels))}


def seconds(call, repeats=5):
    """Least time of several calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def compare(ours, theirs, z):
    """Time one metric over N x z probabilities, given in several ways."""
    probs, labels = np.random.default_rng(0).dirichlet(np.ones(z), size=N), np.arange(N) % 20
    tensors, lists = (torch.tensor(probs), torch.tensor(labels)), probs.tolist()
    alone = seconds(lambda: leep(*tensors))
    print(f"{N} x {z}: the function alone {alone:.2f} s")
    for name, metric in (("our adapter", ours), ("a plain evaluate.Metric", theirs)):
        arrays = seconds(lambda metric=metric: metric.compute(source_probs=probs, labels=labels), repeats=3)
        nested = seconds(lambda metric=metric: metric.compute(source_probs=lists, labels=labels), repeats=2)
        print(f"  {name}: arrays {arrays:.2f} s, nested lists {nested:.2f} s")
    adding = seconds(lambda: [ours.add(source_probs=row, labels=7) for row in probs[:500]], repeats=1)
    ours.compute(source_probs=probs, labels=labels)
    print(f"  one row by `add`: {1000 * adding / 500:.2f} ms")


def main():
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Leep(cache_dir=folder), LeepByLists(cache_dir=folder)
        for z in (768, 2048):
            compare(ours, theirs, z)


if __name__ == "__main__":
    main()
