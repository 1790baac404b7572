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
    parser.add_argument("--source", help="a labelled sample of the data the models were trained on: Hub id or path")
    parser.add_argument("--reference", help="the network rsa compares with; a small one trained on the images if none")
    parser.add_argument("--max-per-class", type=int, default=25)
    arguments = parser.parse_args()
    models = {name: name for name in arguments.models or embedded_models()}
    for dataset in arguments.dataset:
        ranking = rank_models(
            dataset,
            {**models, "untrained": untrained_network()},
            "all",
            source=arguments.source,
            reference=arguments.reference,
            max_per_class=arguments.max_per_class,
        )
        print(ranking)
        print("Order by each metric:")
        for metric in ranking.metrics:
            ranked = (candidate.name for candidate in ranking.by(metric) if metric in candidate.scores)
            print(f"  {metric:18s}", " > ".join(ranked))
        print("Kendall's tau between the metrics:")
        print(ranking.agreement().round(2).to_string())
        print_verdict(ranking)


def print_verdict(ranking: Ranking) -> None:
    """Say which metrics put the control last."""
    fooled = [
        metric for metric in ranking.metrics if metric in ranking["untrained"].scores and not is_last(ranking, metric)
    ]
    print(f"Metrics that do not put the untrained network last: {', '.join(fooled) or 'none'}\n")


def is_last(ranking: Ranking, metric: str) -> bool:
    """Whether the control has the lowest score by a metric."""
    scores = [candidate.scores[metric].value for candidate in ranking if metric in candidate.scores]
    return ranking["untrained"].scores[metric].value == min(scores)


if __name__ == "__main__":
    main()
