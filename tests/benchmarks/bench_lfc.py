"""Time and memory of lfc against its n x n form, at sizes where that form takes gigabytes.

Run ``python tests/benchmarks/bench_lfc.py`` (about two minutes on 2 cores, 4 GB; ``--quick`` for a smoke run).
Each measurement has a process of its own, so that one's peak memory cannot hide another's. The two forms take turns
and the best of each counts; processor seconds (all threads) stand beside, for machines that others use as well.

The n x n form is Eq. 8 as it stands: Theta whole, in float64 as ours, centred in place. Its label matrix is made in
blocks of rows, in the same loop that sums the three products, which spares it 3.2 GB and two passes over memory.
"""

import argparse
import multiprocessing
import resource
import sys
import time

import torch

from hf_zoosel.metrics import lfc

MEGABYTE = 2**20
CLASSES = 100


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default 2)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the samples")
    args = parser.parse_args()
    tenth = 10 if args.quick else 1
    print(f"torch {torch.__version__}, {args.threads} threads, float32 features")

    n, d = 20_000 // tenth, 2048
    turns = [[measure(form, n, d, args.threads) for form in (lfc, lfc_with_both_matrices)] for _ in range(2)]
    ours, theirs = (min(results) for results in zip(*turns, strict=True))  # least wall time
    report("lfc", n, d, *ours)
    report("n x n form", n, d, *theirs)
    print(
        f"n x n form / lfc: {theirs[0] / ours[0]:.1f} x the time, {theirs[1] / ours[1]:.1f} x the processor time; "
        f"scores differ by {abs(theirs[3] - ours[3]):.1e}"
    )
    n, d = 1_000_000 // tenth, 256
    report("lfc", n, d, *measure(lfc, n, d, args.threads))


def report(name, n, d, seconds, processor, extra, score):
    times = f"{seconds:7.2f} s ({processor:6.2f} s processor)"
    print(f"{name:10} n={n:>9,} d={d:>5,}  {times}  {extra / MEGABYTE:6.0f} MB extra  score {score:.6f}")


def measure(function, n, d, threads):
    """Return (seconds, processor seconds, peak bytes above inputs, score) of one call in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure_here, (function, n, d, threads))


def measure_here(function, n, d, threads):
    torch.set_num_threads(threads)
    function(*task(200, 100))  # threads and libraries are up before the clock and the memory count
    features, labels = task(n, d)
    before, start, processor_start = peak_memory(), time.perf_counter(), time.process_time()
    score = function(features, labels)
    return time.perf_counter() - start, time.process_time() - processor_start, peak_memory() - before, score


def task(n, d):
    """Features made in place, so that the inputs themselves are the peak so far."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(CLASSES, (n,), generator=generator)
    features = torch.empty(n, d).normal_(generator=generator).add_(1)
    signal = 0.3 * torch.randn(CLASSES, d, generator=generator)
    for c in range(CLASSES):
        features[labels == c] += signal[c]
    return features, labels


def peak_memory():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def lfc_with_both_matrices(features, labels):
    x = features.double()
    theta = x @ x.T
    theta -= theta.mean()
    label_mean = 2 * (labels.bincount().double() / len(labels)).square().sum() - 1
    product = theta_norm2 = label_norm2 = 0.0
    for start in range(0, len(labels), 500):
        rows = slice(start, start + 500)
        kernel = torch.where(labels[rows, None] == labels, 1.0, -1.0).double() - label_mean
        product += torch.dot(theta[rows].flatten(), kernel.flatten()).item()
        theta_norm2 += theta[rows].square().sum().item()
        label_norm2 += kernel.square().sum().item()
    return product / (theta_norm2 * label_norm2) ** 0.5


if __name__ == "__main__":
    main()
