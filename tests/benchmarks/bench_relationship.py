"""Time of Co-Tuning's category relationship, and how near it is to one with regressions solved to the last digits.

Run ``python tests/benchmarks/bench_relationship.py`` (about six minutes on 2 cores; ``--only_ours`` for the first row
alone, ``--quick`` for a smoke run). Goal: 1,000 source x 100 target classes from 10,000 samples within 60 s.

The predictions are made: source classes are directions, a target class lies amid three of them, and the head is about
as sure as one of ImageNet is of images that are not its own. Processor seconds (all threads) stand beside, for
machines that others use as well. The second row is the authors' loop with today's scikit-learn: every regression
from zero, 100 steps at most, the default rule to stop.
"""

import argparse
import time
import warnings

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from torch.nn.functional import normalize

from hf_zoosel.objectives import category_relationship, relationship_fit
from hf_zoosel.objectives.relationship import bayes
from hf_zoosel.objectives.temperature import temperature_and_side

WIDTH = 64  # of the features the head sees


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="threads (default 2)")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--only_ours", action="store_true", help="the first row alone")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    n, n_source, n_target = (1000, 100, 10) if args.quick else (10_000, 1000, 100)
    train, validation = predictions(n, n_source, n_target)
    sure = train[0].amax(dim=1).mean().item()
    print(f"{n:,} samples, {n_source:,} x {n_target:,} classes, {args.threads} threads, largest of a row {sure:.2f}")
    with threadpool_limits(args.threads):
        found = {"ours": report("ours", ours, train, validation)}
        if not args.only_ours:
            found["authors"] = report("authors", authors, train, validation)
            exact = report("to the last digits", to_the_last_digits, train, validation)
            for name, matrix in found.items():
                apart = (matrix - exact).abs()
                rows = apart.sum(dim=1).max() / 2
                print(f"{name}: entries differ by {apart.max():.1e} at most, rows by {rows:.1e} in total variation")


def report(name, way, train, validation):
    """Print the time and the choices of one way, and return its matrix."""
    wall, processor = time.perf_counter(), time.process_time()
    matrix, strength, scale, accuracy = way(train, validation)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    times = f"{wall:7.1f} s ({processor:7.1f} s processor)"
    print(f"{name:18} {times}  strength {strength:g}, scale {scale:.5f}, accuracy {accuracy:.4f}", flush=True)
    return matrix


def predictions(n, n_source, n_target):
    """Return (probabilities, labels) of training and, a fifth of all, validation."""
    generator = torch.Generator().manual_seed(0)

    def noise(*size):
        return torch.randn(*size, WIDTH, generator=generator, dtype=torch.float64)

    head = normalize(noise(n_source), dim=1)
    amid = head[torch.randint(n_source, (n_target, 3), generator=generator)].sum(dim=1)
    classes = normalize(amid + 1.5 * noise(n_target) / WIDTH**0.5, dim=1)
    labels = torch.arange(n)[torch.randperm(n, generator=generator)] % n_target
    features = normalize(classes[labels] + 1.05 * noise(n) / WIDTH**0.5, dim=1)
    probs, cut = (30 * features @ head.T).softmax(dim=1), n * 4 // 5
    return (probs[:cut], labels[:cut]), (probs[cut:], labels[cut:])


def ours(train, validation):
    found = category_relationship(*train, validation_probs=validation[0], validation_labels=validation[1])
    return found.matrix, found.strength, found.scale, found.validation_accuracy


def to_the_last_digits(train, validation):
    usual = relationship_fit._ROUGH, relationship_fit._FINE
    relationship_fit._ROUGH = relationship_fit._FINE = 1e-9
    try:
        return ours(train, validation)
    finally:
        relationship_fit._ROUGH, relationship_fit._FINE = usual


def authors(train, validation):
    best = None
    for strength in relationship_fit.STRENGTHS:
        model = LogisticRegression(C=strength, fit_intercept=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(train[0].numpy(), train[1].numpy())
        accuracy = (model.predict(validation[0].numpy()) == validation[1].numpy()).mean()
        if best is None or accuracy > best[0]:
            best = accuracy, strength, torch.from_numpy(model.coef_.T.copy())
    accuracy, strength, weights = best
    temperature, _ = temperature_and_side(validation[0] @ weights, validation[1])
    matrix = bayes(weights / temperature, torch.cat([train[0], validation[0]]).mean(dim=0))
    return matrix, strength, 1 / temperature, accuracy


if __name__ == "__main__":
    main()
