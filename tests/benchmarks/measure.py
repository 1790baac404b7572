"""One metric at one size, beside another form of it: what bench_metrics.py runs in a process of its own.

    python -m tests.benchmarks.measure METRIC N D K --against {reference,transcription,peer} [--repeats 5]

Prints one line of JSON: for ``ours`` and ``other`` the seconds of the best call and the value, and for ours the peak
memory of its first call above the inputs; or an error. The value of a zoo-relative metric is its terms and, beside a
transcription, the scores over a zoo of three. Seconds are those of the processor, which other jobs on the machine
disturb less than the clock on the wall; all forms run on one thread, and a second one would count. Inputs are float32
and made in place, from a seed, so that they are themselves the peak of memory so far.
"""

import argparse
import json
import resource
import sys
import time
from functools import partial
from importlib import import_module

import torch

from hf_zoosel.metrics import METRICS, VARIANTS
from hf_zoosel.metrics.etran import etran_terms
from hf_zoosel.metrics.rsa import rank_reference
from hf_zoosel.metrics.sfda import sfda

SOURCE_CLASSES, REFERENCE_FEATURES, GRADIENTS = 1000, 512, 10_000
WARM_UP = ((90, 24, 5), (40, 60, 4))
ENOUGH_SECONDS = 4  # spent on one form: no further repeats
PAPERS_FORM = {"sfda": partial(sfda, held_out=False), "etran": partial(etran_terms, held_out=False)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("metric")
    parser.add_argument("size", type=int, nargs=3, metavar=("N", "D", "K"), help="samples, features, classes")
    parser.add_argument("--against", choices=["reference", "transcription", "peer"], default="reference")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    metric = {**METRICS, **VARIANTS}[args.metric]
    print(json.dumps(measured(metric, tuple(args.size), args.against, args.repeats)))


def measured(metric, size, against, repeats):
    for shape in WARM_UP:  # threads and libraries are up before the clock and the memory count
        metric.fn(*arguments(metric.needs, *shape))
    given = arguments(metric.needs, *size)
    before, started = peak_memory(), time.process_time()
    value = metric.fn(*given)
    first, extra = time.process_time() - started, peak_memory() - before
    ours = {"seconds": min(first, best_time(metric.fn, given, repeats - 1, first)), "extra": extra}
    try:
        other = FORMS[against](metric)
        given = arguments(metric.needs, *size, ranked=False)
        if against != "transcription":  # slow, but of no library that would have to be loaded
            other(*arguments(metric.needs, *WARM_UP[0], ranked=False))
        started = time.process_time()
        theirs = other(*given)
        first = time.process_time() - started
        seconds = first if against == "transcription" else min(first, best_time(other, given, repeats - 1, first))
        if against == "reference" and metric.name in PAPERS_FORM:
            value = PAPERS_FORM[metric.name](*given)
        if against == "transcription" and metric.over_zoo is not None:
            value, theirs = value + over_zoo(metric.over_zoo, value), theirs + over_zoo(zoo_of(metric), theirs)
        return {"ours": ours | {"value": numbers(value)}, "other": {"seconds": seconds, "value": numbers(theirs)}}
    except Exception as error:  # ours is measured all the same
        return {"ours": ours | {"value": numbers(value)}, "error": f"{type(error).__name__}: {error}"}


def over_zoo(combine, terms):
    """The scores of a zoo of this candidate and two with other terms."""
    one = torch.tensor(terms, dtype=torch.float64)
    scale = torch.tensor([0.9, 1.2, 0.7], dtype=torch.float64)[: len(one)]
    return tuple(map(float, combine(torch.stack([one, one * scale, one / scale**2]))))


def best_time(function, given, repeats, spent):
    best = float("inf")
    for _ in range(repeats):
        if spent > ENOUGH_SECONDS:
            break
        started = time.process_time()
        function(*given)
        best, spent = min(best, time.process_time() - started), spent + time.process_time() - started
    return best


def numbers(value):
    return [float(one) for one in value] if isinstance(value, tuple) else [float(value)]


def peak_memory():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def arguments(needs, n, d, k, *, ranked=True):
    """What a metric asks for, of one made-up task; ``ranked`` as ``rank_models`` gives the reference side."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n)[torch.randperm(n, generator=generator)] % k
    means = 3 / d**0.5 * torch.randn(k, d, generator=generator)  # some four deviations apart, whatever d

    def features():
        x = torch.empty(n, d).normal_(generator=generator)
        for c in range(k):
            x[labels == c] += means[c]
        return x.mul_(torch.linspace(0.1, 2, d)).relu_()

    def logits(width):
        x = torch.empty(n, width).normal_(generator=generator).mul_(2)
        x[torch.arange(n), 3 * labels % width] += 5 * torch.rand(n, generator=generator)
        return x

    def probs():
        x = logits(SOURCE_CLASSES if n > 1000 else 40)
        for start in range(0, n, 500):
            x[start : start + 500] = x[start : start + 500].softmax(dim=1)
        return x

    def reference():
        x = torch.empty(n, REFERENCE_FEATURES).normal_(generator=generator)
        x[torch.arange(n), labels] += 3
        return x

    def gradients():
        x = torch.empty(n, GRADIENTS if n > 1000 else 10 * d).normal_(generator=generator)
        x[torch.arange(n), labels] += 3
        return x

    makers = {
        "features": features,
        "labels": lambda: labels,
        "source_logits": lambda: logits(SOURCE_CLASSES if n > 1000 else 40),
        "source_probs": probs,
        "map_statistics": lambda: torch.rand(n, 2, generator=generator),
        "reference": lambda: rank_reference(reference()) if ranked else reference(),
        "source_means": lambda: torch.randn(min(n, 1000), d, generator=generator).relu_(),
        "source_counts": lambda: torch.randint(200, 1300, (min(n, 1000),), generator=generator),
        "source_features": lambda: torch.randn(min(n, 1000), d, generator=generator).relu_(),
        "source_labels": lambda: torch.arange(min(n, 1000)) % 50,
    }
    return [makers.get(need, gradients)() for need in needs]


def reference_of(metric):
    from tests.benchmarks.references import REFERENCES

    return REFERENCES[metric.name]


def transcription_of(metric):
    """``<name>_as_written`` or ``<name>_terms_as_written``, in the file of its name.

    Variants stand in the file of what they are a variant of, as an option or a function of their own.
    """
    if metric.name == "feature_metrics":
        return lambda statistics: tuple(sum(column) / len(column) for column in statistics.double().T.tolist())
    file = metric.name
    while True:
        try:
            module = import_module(f"tests.metrics.transcriptions.{file}")
            break
        except ModuleNotFoundError:
            if "_" not in file:
                raise
            file = file.rpartition("_")[0]
    found = [f"{metric.name}_as_written", f"{metric.name}_terms_as_written"]
    functions = [getattr(module, name) for name in found if hasattr(module, name)]
    option = metric.name.removeprefix(f"{file}_")
    return functions[0] if functions else partial(getattr(module, f"{file}_as_written"), **{option: True})


def zoo_of(metric):
    module = import_module(f"tests.metrics.transcriptions.{metric.name}")
    if metric.name == "feature_metrics":
        return lambda terms: module.c56_as_written(*terms.T.tolist())
    return lambda terms: getattr(module, f"{metric.name}_over_zoo_as_written")(terms.tolist())


def peer_of(metric):
    """The estimator of transformer-ranker, whose kNN takes three neighbours; embeddings are as many bits as given."""
    from hf_zoosel._torchvision import mend_torchvision

    mend_torchvision()  # its import reaches torchvision
    from transformer_ranker import estimators

    made = {"logme": estimators.LogME, "h_score": estimators.HScore, "knn": estimators.NearestNeighbors}
    return made[metric.name]().fit


FORMS = {"reference": reference_of, "transcription": transcription_of, "peer": peer_of}

if __name__ == "__main__":
    main()
