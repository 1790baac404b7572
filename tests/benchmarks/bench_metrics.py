"""Every metric of the table: is it what its paper says, how fast is it, and what memory does it take?

    python tests/benchmarks/bench_metrics.py [--only NAMES] [--sizes A B] [--small-only] [--lgc] [--peer-path DIR]

First each metric against the slow transcription of its paper (tests/metrics/transcriptions) on a small task; then, at
the two sizes of tests/benchmarks, its time on one thread against a straightforward form of the same formula
(references.py), against the figures published for the peers, and, where transformer-ranker can be imported, against
its estimators; and its peak memory above the inputs. Each measurement has a process of its own (measure.py).

To have the peer: ``pip install --no-deps --target DIR transformer-ranker torchmetrics lightning-utilities``.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from hf_zoosel.metrics import METRICS, VARIANTS
from hf_zoosel.metrics.registry import PER_ROW

ROOT = Path(__file__).parents[2]
SIZES = {"A": (5000, 768, 20), "B": (2000, 2048, 100)}
SMALL = (300, 64, 6)
SMALLER = {  # whose transcriptions are slower than the others'
    "linear": (150, 64, 6),
    "lgc": (150, 64, 6),
    "parc": (150, 64, 6),
    "rsa": (150, 64, 6),
    "otce": (80, 64, 6),
}
MEGABYTE = 2**20

# Seconds on one thread of the fastest peer that has the metric, 2026-11, on another machine than this one may be.
PEER_SECONDS = {
    "h_score": {"A": 0.56, "B": 5.11},
    "logme": {"A": 0.33, "B": 3.22},
    "transrate": {"A": 0.30, "B": 17.19},
    "parc": {"A": 6.81, "B": 0.94},
    "rsa": {"A": 7.49},
    "sfda": {"A": 0.60, "B": 9.91},
    "nleep": {"A": 1.21, "B": 2.32},
    "lfc": {"A": 0.27, "B": 0.09},
}
RANKER_SECONDS = {"h_score": {"A": 0.56, "B": 5.11}, "logme": {"A": 0.71, "B": 3.22}}  # of transformer-ranker
FASTER = {"transrate": 10, "sfda": 10}  # than the peer; others twice
MOST_MEGABYTES, MOST_DIFFERENCE, MOST_PASSES = 200, 1e-9, 3
IN_PEER = ("logme", "h_score", "knn")
DRAWN = {"nleep": "its k-means start", "otce": "which 1,000 samples it takes"}  # values at random: not compared


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="metrics to measure; all by default")
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--small-only", action="store_true", help="the comparison with the transcriptions only")
    parser.add_argument("--lgc", action="store_true", help="also what gradients cost beside a plain forward pass")
    parser.add_argument("--peer-path", type=Path, help="folder that transformer-ranker is installed in")
    parser.add_argument("--repeats", type=int, default=5, help="calls, at most, of which the best counts")
    args = parser.parse_args()
    names = measurable()
    if args.only:
        names = [name for name in {**METRICS, **VARIANTS} if name in args.only]
    values(names)
    if not args.small_only:
        for size in args.sizes:
            speed(names, size, args.repeats)
        peers([name for name in names if name in IN_PEER], args)
    if args.lgc:
        subprocess.run([sys.executable, "-m", "tests.benchmarks.measure_lgc"], env=environment(), cwd=ROOT)


def measurable():
    """All metrics that look at the target; once where several names stand for one function of other rows."""
    seen, names = set(), []
    for name, metric in {**METRICS, **VARIANTS}.items():
        if PER_ROW.intersection(metric.needs) and metric.fn not in seen:
            seen.add(metric.fn)
            names.append(name)
    left = [name for name in {**METRICS, **VARIANTS} if name not in names]
    print(f"Not measured, as they are a fact, made of other scores, or a metric on other rows: {', '.join(left)}.\n")
    return names


def measure(name, size, against, *, repeats=5, peer_path=None):
    """What measure.py prints, or an error."""
    command = [sys.executable, "-m", "tests.benchmarks.measure", name, *map(str, size), "--against", against]
    done = subprocess.run(
        [*command, "--repeats", str(repeats)], env=environment(peer_path), cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def environment(peer_path=None):
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    paths = [str(ROOT), os.environ.get("PYTHONPATH", ""), "" if peer_path is None else str(peer_path.resolve())]
    return {**os.environ, **threads, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def values(names):
    n, d, k = SMALL
    other = ", ".join(f"{name} n = {shape[0]}" for name, shape in SMALLER.items() if name in names)
    print(f"## Values (n = {n}, d = {d}, C = {k}; {other or 'all alike'}; one thread)\n")
    header("metric", "value here", "value as written", "relative difference", "time here", "time as written", "goal")
    for name in names:
        found = measure(name, SMALLER.get(name, SMALL), "transcription")
        if "error" in found:
            row(name, f"error: {found['error']}")
            continue
        ours, other = found["ours"], found["other"]
        off = difference(ours["value"], other["value"])
        goal = "holds" if off <= MOST_DIFFERENCE else f"missed: {off:.1e} > {MOST_DIFFERENCE}"
        times = (f"{1e3 * form['seconds']:.1f} ms" for form in (ours, other))
        row(name, text(ours["value"]), text(other["value"]), f"{off:.1e}", *times, goal)
    print()


def speed(names, size, repeats):
    n, d, k = SIZES[size]
    print(f"## Speed and memory at {size}: n = {n}, d = {d}, C = {k}, one thread, best of up to {repeats}\n")
    columns = ("metric", "ours", "reference", "reference / ours", "values differ by", "peer's figure", "peer / ours")
    header(*columns, "extra memory", "goals")
    for name in names:
        found = measure(name, SIZES[size], "reference", repeats=repeats)
        if "ours" not in found:
            row(name, f"error: {found['error']}")
            continue
        ours, peer = found["ours"], PEER_SECONDS.get(name, {}).get(size)
        beside = ("error: " + found["error"], "", "") if "error" in found else against_reference(name, **found)
        figure = ("", "") if peer is None else (f"{peer} s", f"{peer / ours['seconds']:.1f} x")
        memory = ours["extra"] / MEGABYTE
        row(name, f"{ours['seconds']:.3f} s", *beside, *figure, f"{memory:.0f} MB", goals(name, ours, peer))
    for name in sorted(DRAWN.keys() & set(names)):
        print(f"\nThe value of {name} depends on {DRAWN[name]}, so the two forms differ.")
    if "pactran" in names:
        print("\nThe reference of pactran stops after 100 steps of L-BFGS, as its authors do: before the optimum.")
    print()


def against_reference(name, ours, other):
    off = "" if name in DRAWN else f"{difference(ours['value'], other['value']):.0e}"
    return f"{other['seconds']:.3f} s", f"{other['seconds'] / ours['seconds']:.1f} x", off


def goals(name, ours, peer):
    missed = []
    if peer is not None and peer / ours["seconds"] < FASTER.get(name, 2):
        missed.append(f"less than {FASTER.get(name, 2)} x as fast as the peer")
    if ours["extra"] > MOST_MEGABYTES * MEGABYTE:
        missed.append(f"more than {MOST_MEGABYTES} MB")
    return "missed: " + ", ".join(missed) if missed else "hold"


def peers(names, args):
    rows = [
        (name, size, measure(name, SIZES[size], "peer", repeats=args.repeats, peer_path=args.peer_path))
        for name in names
        for size in args.sizes
    ]
    if not rows:
        return
    absent = [found["error"] for *_, found in rows if "error" in found]
    if absent:
        print(f"transformer-ranker cannot be run ({absent[0]}): see --help for how to have it.\n")
        return
    print("## transformer-ranker on the same features\n")
    columns = ("metric", "size", "ours", "transformer-ranker", "theirs / ours", "its figure", "here / figure")
    header(*columns, "value here", "value there")
    for name, size, found in rows:
        ours, other = found["ours"], found["other"]
        times = f"{ours['seconds']:.3f} s", f"{other['seconds']:.3f} s", f"{other['seconds'] / ours['seconds']:.1f} x"
        figure = RANKER_SECONDS.get(name, {}).get(size)
        machine = ("", "") if figure is None else (f"{figure} s", f"{other['seconds'] / figure:.1f} x")
        row(name, size, *times, *machine, text(ours["value"]), text(other["value"]))
    print(
        "\nThe column before the values tells how many times slower this machine is than the one of the figures. Its "
        "logme\nstops at a relative change of 1e-3 and lacks a term for n < d; its h_score divides the covariance of "
        "the means by\nn - 1; its knn takes three neighbours, in float32.\n"
    )


def difference(ours, theirs):
    """The largest of the relative differences."""
    pairs = zip(ours, theirs, strict=True)
    return max(0.0 if one == other else abs(one - other) / max(abs(one), abs(other)) for one, other in pairs)


def text(numbers):
    return ", ".join(f"{number:.10g}" for number in numbers)


def header(*columns):
    row(*columns)
    row(*("---" for _ in columns))


def row(*cells):
    print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
