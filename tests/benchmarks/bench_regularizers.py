"""Time of each regulariser beside a training step, and of BSS by eigenvalues beside the singular values.

Run ``python tests/benchmarks/bench_regularizers.py`` (about a minute on one core, 1 GB; ``--quick`` for a smoke run).
All times are of the value and its gradient, the best of the repeats, forms taking turns; the ratios within one run are
what counts. Weights and maps are those of tf_efficientnet_lite0, without its weights: 3.4 million parameters of the
backbone, and the maps of its 16 blocks. The singular values are squared and summed as in the paper; torch's own
gradient of them forms the singular vectors.
"""

import argparse
import time
from copy import deepcopy

import torch

from hf_zoosel._torchvision import mend_torchvision
from hf_zoosel.objectives import REGULARIZERS, bss, replace_norms

mend_torchvision()
import timm  # noqa: E402  after torchvision is mended

SOURCE_CLASSES = 1000


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default 1)")
    parser.add_argument("--quick", action="store_true", help="small images, one repeat")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    repeats = 2 if args.quick else 7
    print(f"torch {torch.__version__}, {args.threads} threads, float32, best of {repeats}")

    for n, d in ((16, 64), (32, 1280)) if args.quick else ((64, 512), (64, 1280), (256, 1280), (256, 2048)):
        compare_spectra(n, d, repeats)
    compare_with_a_step(batch=4 if args.quick else 32, size=64 if args.quick else 128, repeats=repeats)


def compare_spectra(n, d, repeats):
    features = torch.randn(n, d, generator=torch.Generator().manual_seed(0)).relu_().requires_grad_()

    def by_svd():
        torch.autograd.grad(torch.linalg.svdvals(features)[-1] ** 2, features)

    ours, svd = best({"bss": lambda: torch.autograd.grad(bss(features), features), "svd": by_svd}, repeats).values()
    with torch.no_grad():
        exact = torch.linalg.svdvals(features.double())[-1] ** 2
        errors = [abs(one / exact - 1).item() for one in (bss(features), torch.linalg.svdvals(features)[-1] ** 2)]
    print(
        f"bss n={n:>4} d={d:>5} {1e3 * ours:8.2f} ms   svdvals {1e3 * svd:8.2f} ms   svdvals / bss {svd / ours:5.1f}"
        f"   relative errors {errors[0]:.0e}, {errors[1]:.0e}"
    )


def compare_with_a_step(*, batch, size, repeats):
    model = timm.create_model("tf_efficientnet_lite0", num_classes=SOURCE_CLASSES).train()
    stochastic = deepcopy(model)
    replace_norms(stochastic, 0.5)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(batch, 3, size, size, generator=generator)

    def step(network):
        network(pixels).logsumexp(dim=1).mean().backward()

    forms = {"step": lambda: step(model), "stoch_norm": lambda: step(stochastic)}
    given = arguments(model, pixels, generator)
    for name, one in REGULARIZERS.items():
        if one.kind == "penalty":
            forms[name] = penalty(one, {need: given[need] for need in one.needs})
        elif one.kind == "projection":
            weights = {name: w.detach().clone() for name, w in given["weights"].items()}
            forms[name] = lambda fn=one.fn, weights=weights, r=one.strength: fn(weights, given["start"], radius=r)
    times = best(forms, repeats)
    base = times.pop("step")
    print(f"a step of tf_efficientnet_lite0, {batch} images of {size} px: {base:.3f} s; in addition to it")
    for name, seconds in times.items():
        extra = seconds - base if name == "stoch_norm" else seconds
        print(f"{name:16} {1e3 * extra:8.2f} ms   {extra / base:7.2%} of the step")


def penalty(regularizer, given):
    moved = [leaf for value in given.values() for leaf in leaves(value) if leaf.requires_grad]
    return lambda: torch.autograd.grad(regularizer.fn(**given), moved)


def arguments(model, pixels, generator):
    maps = []
    hooks = [
        block.register_forward_hook(lambda *call: maps.append(call[2])) for stage in model.blocks for block in stage
    ]
    with torch.no_grad():
        features = model.forward_head(model.forward_features(pixels), pre_logits=True)
    for hook in hooks:
        hook.remove()
    weights = {name: w for name, w in model.named_parameters() if not name.startswith("classifier")}
    logits = torch.randn(len(pixels), SOURCE_CLASSES, generator=generator)
    return {
        "weights": weights,
        "start": {name: w.detach() + 0.01 for name, w in weights.items()},
        "features": features.clone().requires_grad_(),
        "maps": [one.clone().requires_grad_() for one in maps],
        "start_maps": [one + 0.1 for one in maps],
        "kept_logits": logits.clone().requires_grad_(),
        "start_logits": logits + 0.1,
        "channel_weights": [torch.full((one.shape[1],), 1 / one.shape[1]) for one in maps],
    }


def leaves(value):
    return [value] if isinstance(value, torch.Tensor) else list(value.values()) if isinstance(value, dict) else value


def best(forms, repeats):
    """Seconds of each form, which take turns, so that what else the machine does hits all alike."""
    times = {name: [] for name in forms}
    for _ in range(repeats + 1):
        for name, form in forms.items():
            start = time.perf_counter()
            form()
            times[name].append(time.perf_counter() - start)
    return {name: min(seconds[1:]) for name, seconds in times.items()}  # the first warms up


if __name__ == "__main__":
    main()
