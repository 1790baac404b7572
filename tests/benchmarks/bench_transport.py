"""Time and memory of source selection by transport: classes, 21,841 classes, and a million single samples.

Run ``python tests/benchmarks/bench_transport.py`` (about four minutes on 2 cores, 4 GB, 2 GB of temporary disk;
``--quick`` for a smoke run at a tenth, ``--classes`` without the samples). Each measurement has a process of its own,
so that one's peak memory cannot hide another's. Goals: classes 1,000 x 200 within 30 ms, cost included; 21,841 x 1,000
within 3 s and 1.5 GB; samples 1,000,000 x 512 against 200 targets, read from disk, within 90 s and 1 GB.

``plain POT`` is ``x @ y.T`` of normalised float64 rows and a bare ``sinkhorn_unbalanced``; ``plan`` is ours of the
same with its checks; ``select_groups`` is the whole choice: plan, who serves which class, nearness of the source's own
classes, the record. ``select_samples`` chooses 50,000. The peer's cost matrix is that of the script of Liu et al.
2022: differences of all pairs, n x m x d, summed over d.
"""

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import torch

from hf_zoosel.selection import Groups, Pool, select_groups, select_samples
from hf_zoosel.transport import cosine_cost, semi_relaxed_mass, semi_relaxed_plan, unbalanced_mass, unbalanced_plan

MEGABYTE = 2**20
BLOCK = 8192


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default 2)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the source")
    parser.add_argument("--classes", action="store_true", help="no single samples")
    args = parser.parse_args()
    tenth = 10 if args.quick else 1
    print(f"torch {torch.__version__}, {args.threads} threads, float32 features; best of the repeats")

    size = (1000 // tenth, 200, 2048)
    ours = compared_with_pot(*size, args.threads, repeats=20)
    peer = measure(uot_with_broadcast, *size, args.threads, repeats=2)
    report("plan, peer's cost", *size, *peer)
    print(
        f"peer / ours: {peer[0] / ours[0]:.0f} x the time, {peer[1] / MEGABYTE:.0f} MB against "
        f"{ours[1] / MEGABYTE:.0f} MB; total masses differ by {abs(peer[2] / ours[2] - 1):.0e}"
    )
    report("semi_relaxed plan", *size, *measure(semi_relaxed_of_classes, *size, args.threads, repeats=20))
    for width in (512, 2048):
        compared_with_pot(21_841 // tenth, 1000, width, args.threads, repeats=3)
    if args.classes:
        return
    with tempfile.TemporaryDirectory() as folder:
        size, file = (1_000_000 // tenth, 200, 512), Path(folder) / "features.f32"
        write_samples(file, *size)
        for name, solve in (("unbalanced_mass", unbalanced_mass), ("semi_relaxed_mass", semi_relaxed_mass)):
            report(name, *size, *measure(partial(mass_of_samples, solve, file), *size, args.threads, repeats=1))
        report("select_samples", *size, *measure(partial(selection_of_samples, file), *size, args.threads, repeats=1))


def compared_with_pot(*size_and_threads, repeats):
    """Report a plain POT call, our plan and the whole selection; return the plan's figures."""
    size = size_and_threads[:3]
    plain = measure(uot_by_pot, *size_and_threads, repeats=repeats)
    ours = measure(uot_of_classes, *size_and_threads, repeats=repeats)
    whole = measure(selection_of_classes, *size_and_threads, repeats=repeats)
    for name, figures in (("plain POT", plain), ("plan", ours), ("select_groups", whole)):
        report(name, *size, *figures)
    print(f"against plain POT: plan {ours[0] / plain[0]:.2f} x the time, select_groups {whole[0] / plain[0]:.2f} x")
    return ours


def report(name, n, m, d, seconds, extra, mass, note):
    print(f"{name:21} {n:>9,} x {m:>5,}, d={d:>5,} {seconds:9.4f} s {extra / MEGABYTE:6.0f} MB extra  {note}")
    assert np.isfinite(mass)


def measure(function, n, m, d, threads, *, repeats):
    """Return (seconds, peak bytes above inputs, total mass, note) in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure_here, (function, (n, m, d), threads, repeats))


def measure_here(function, size, threads, repeats):
    torch.set_num_threads(threads)
    function(*inputs(50, *size[1:], source_size=50))  # threads and libraries are up before the clock and memory count
    given = inputs(*size, source_size=50 if isinstance(function, partial) else size[0])
    before, times = peak_memory(), []
    for _ in range(repeats):
        start = time.perf_counter()
        mass, note = function(*given)
        times.append(time.perf_counter() - start)
    return min(times), peak_memory() - before, mass, note


def inputs(n, m, d, *, source_size):
    """The size of the source, source rows, target rows: clusters, a fifth of the source's near the target."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(m, d, generator=generator).relu_()
    return n, clustered(target, source_size, generator), target


def clustered(target, n, generator):
    m, d = target.shape
    centres = torch.cat([target, torch.randn(4 * m, d, generator=torch.Generator().manual_seed(1)).relu_()])
    rows = torch.empty(n, d).normal_(generator=generator)
    return rows.add_(centres[torch.randint(5 * m, (n,), generator=generator)])


def uot_of_classes(n, source, target):
    plan = unbalanced_plan(cosine_cost(source, target) / 0.1, torch.ones(len(source)), torch.ones(len(target)))
    return plan.mass, f"{plan.n_iterations} iterations"


def uot_by_pot(n, source, target):
    from ot.unbalanced import sinkhorn_unbalanced

    x, y = (rows.double() / rows.double().norm(dim=1, keepdim=True) for rows in (source, target))
    cost = ((1 - x @ y.T) / 0.1).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plan = sinkhorn_unbalanced(np.ones(len(x)), np.ones(len(y)), cost, 1.0, (1.0, 100.0), reg_type="entropy")
    return plan.sum(), ""


def selection_of_classes(n, source, target):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random classes may be far from each other
        found = select_groups(named(source, "s"), named(target, "t"), k=len(source) // 10)
    return sum(found.mass), f"{found.n_chosen:,} chosen"


def named(rows, prefix):
    return Groups(rows, torch.full((len(rows),), 50), tuple(f"{prefix}{i}" for i in range(len(rows))))


def semi_relaxed_of_classes(n, source, target):
    return semi_relaxed_plan(cosine_cost(source, target) / 0.1, torch.ones(len(target))).mass, "closed form"


def uot_with_broadcast(n, source, target):
    x, y = (rows / rows.norm(dim=1, keepdim=True) for rows in (source, target))
    cost = (x[:, None] - y).square_().sum(dim=2).double() / 2  # 1 - cos of unit rows
    plan = unbalanced_plan(cost / 0.1, torch.ones(len(source)), torch.ones(len(target)))
    return plan.mass, f"{plan.n_iterations} iterations"


def mass_of_samples(solve, file, n, source, target):
    found = solve(partial(blocks_of, file, n, target.shape[1]), target, torch.ones(len(target)))
    return found.target.sum().item(), f"{found.n_iterations} passes, last change {found.gap:.0e}"


def selection_of_samples(file, n, source, target):
    pool = Pool(partial(blocks_of, file, n, target.shape[1]), torch.arange(n))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = select_samples(pool, named(target, "t"), k=min(n, 50_000))
    return sum(found.weights), f"{len(found.rows):,} chosen"


def blocks_of(file, n, width):
    for start in range(0, n, BLOCK):
        count = min(BLOCK, n - start) * width
        yield torch.from_numpy(np.fromfile(file, np.float32, count, offset=4 * width * start)).view(-1, width)


def write_samples(file, n, m, d):
    generator = torch.Generator().manual_seed(2)
    _, _, target = inputs(n, m, d, source_size=1)
    with file.open("wb") as out:
        for start in range(0, n, BLOCK):
            clustered(target, min(BLOCK, n - start), generator).numpy().tofile(out)


def peak_memory():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main()
