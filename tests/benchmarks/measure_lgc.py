"""What the gradients of LGC cost: a forward pass that records them against a plain one of the same images.

    python -m tests.benchmarks.measure_lgc [--images 64] [--batch-size 4] [--rounds 3]

On every embedded network, one thread if OMP_NUM_THREADS=1; rounds alternate and the best of each counts.
"""

import argparse
import time

import torch

from hf_zoosel import embedded_models
from hf_zoosel.demo import handwritten_digits
from hf_zoosel.features.gradients import GradientSketch
from hf_zoosel.metrics import lgc
from hf_zoosel.zoo import resolve

GOAL = 3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    digits = handwritten_digits()[: args.images]
    labels = torch.tensor(digits["label"])
    print(f"## LGC: {args.images} digits in batches of {args.batch_size}, {torch.get_num_threads()} threads\n")
    print("| network | plain pass | pass with gradients | lgc of them | all / plain pass | goal |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in embedded_models():
        network, pixels = ready(name, digits["image"])
        batches = pixels.contiguous(memory_format=torch.channels_last).split(args.batch_size)
        sketch = GradientSketch("features")
        gradients = torch.cat([one_batch(network, batch, sketch) for batch in (pixels[:1], *batches)])[1:]
        rounds = [
            (passes(network, batches, None), passes(network, batches, sketch), elapsed(lgc, gradients, labels))
            for _ in range(args.rounds)
        ]
        plain, recorded, score = (min(seconds) for seconds in zip(*rounds, strict=True))
        ratio = (recorded + score) / plain
        goal = "holds" if ratio <= GOAL else f"missed: more than {GOAL} x"
        times = f"{plain:.2f} s | {recorded:.2f} s | {score:.3f} s"
        print(f"| {name} | {times} | {ratio:.2f} x | {goal} |", flush=True)


def ready(name, images):
    candidate = resolve(name, name)
    network = candidate.load().to(torch.device("cpu"))
    pixels = [candidate.preprocess.batch(torch.from_numpy(candidate.preprocess.pixels(one))[None]) for one in images]
    return network, torch.cat(pixels)


def passes(network, batches, sketch):
    return elapsed(lambda: [one_batch(network, batch, sketch) for batch in batches])


def one_batch(network, pixels, sketch):
    if sketch is None:
        with torch.inference_mode():
            return network(pixels).features
    with torch.no_grad():
        with sketch.watching(network.module):
            output = network(pixels)
        return sketch.rows(output).detach()


def elapsed(function, *arguments):
    started = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
