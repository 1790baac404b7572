"""Rank networks on your images, with a randomly initialised one as a control that should come last.

    python examples/rank_models.py --dataset path/to/images
    python examples/rank_models.py --dataset org/my-images --models timm/resnet50.a1_in1k microsoft/resnet-50

A metric that does not put the control last says little about this data set: look at the others.
"""

import argparse

import torch

from hf_zoosel import Ranking, embedded_models, rank_models


def untrained_network() -> torch.nn.Module:
    """A network with seeded random weights; timm models bring their own preprocessing."""
    import timm

    torch.manual_seed(0)
    return timm.create_model("tf_efficientnet_lite0")


def main() -> None:
    """Rank once, then show how every metric orders the candidates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--dataset", nargs="+", required=True, help="Hub ids or paths")
    parser.add_argument("--models", nargs="+", default=[], help="the embedded zoo by default")
    parser.add_argument("--max-per-class", type=int, default=25)
    arguments = parser.parse_args()
    models = {name: name for name in arguments.models or embedded_models()}
    for dataset in arguments.dataset:
        ranking = rank_models(
            dataset, {**models, "random": untrained_network()}, "all", max_per_class=arguments.max_per_class
        )
        print(ranking)
        print("Order by each metric:")
        for metric in ranking.metrics:
            print(f"  {metric:8s}", " > ".join(candidate.name for candidate in ranking.by(metric)))
        print_verdict(ranking)


def print_verdict(ranking: Ranking) -> None:
    """Say which metrics put the control last."""
    fooled = [metric for metric in ranking.metrics if ranking.by(metric)[-1].name != "random"]
    print(f"Metrics that do not put the random network last: {', '.join(fooled) or 'none'}\n")


if __name__ == "__main__":
    main()
