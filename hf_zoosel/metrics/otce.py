"""OTCE: what the source label of its transport partner tells about a target sample's label."""

import numpy as np
import torch
from torch import Tensor

from hf_zoosel.metrics._checks import check_features, check_labels
from hf_zoosel.metrics._order import canonical_order
from hf_zoosel.metrics._transport import exact_plan, squared_distances


def otce(
    features: Tensor,
    labels: Tensor,
    source_features: Tensor,
    source_labels: Tensor,
    *,
    distance_weight: float = 0.0,
    max_samples: int = 1000,
    seed: int = 0,
) -> float:
    """Negative conditional entropy -H(Y_t | Y_s) of the target label given the source label, under optimal transport.

    The plan that carries the source samples onto the target samples at the least mean squared Euclidean
    distance W gives the joint distribution of the two labels. The score is
    -H(Y_t | Y_s) - ``distance_weight`` W. The paper fits the weights of both terms on auxiliary tasks of
    known accuracy; without any, its authors advise the entropy alone, which is the default. Samples with the same
    features share what is carried to or from them.

    Args:
        features: Features of the target samples, shape ``(n_samples, n_features)``, any float type;
            sums are in float64.
        labels: Target class ids, shape ``(n_samples,)``, any integers.
        source_features: Features of source samples from the same model, shape
            ``(n_source_samples, n_features)``.
        source_labels: Source class ids, shape ``(n_source_samples,)``, any integers.
        distance_weight: Weight of W, at least 0. W is in the squared unit of the features: a weight
            above 0 compares only models whose features have one scale.
        max_samples: Most samples to take of either side: classes in proportion, the first sample of
            every class before the second of any.
        seed: Seed of which samples of a class are taken; without effect up to ``max_samples`` samples.
            It acts on samples sorted by their features, so shuffling them does not change the score.

    Returns:
        Score in nats per sample, at most 0; at least -H(Y_t) without ``distance_weight``; higher is better.

    Raises:
        ValueError: If shapes disagree, features are not finite, fewer than two classes are
            present on either side, or an option is out of its range.
        TypeError: If features are not floats or labels not integers.
        RuntimeError: If the transport problem is not solved to its marginals.

    Reference:
        Tan et al., "OTCE: A Transferability Metric for Cross-Domain Cross-Task Representations",
        CVPR 2021, and its supplement's OT-based NCE, https://arxiv.org/abs/2103.13843; the plan is
        the exact one and the sample 1000 + 1000, as in the authors' code. Stratified sampling and the
        sharing among equal samples are ours.

    Example:
        >>> import torch
        >>> source, target = torch.tensor([[0.0], [1.0], [8.0], [9.0]]), torch.tensor([[0.1], [0.9], [7.0], [9.9]])
        >>> round(otce(target, torch.tensor([0, 0, 0, 1]), source, torch.tensor([0, 0, 1, 1])), 4)
        -0.3466
    """
    options = (distance_weight, max_samples, seed)
    _, own = _of_each_sample((features, labels), (source_features, source_labels), options)
    return own.mean().item()


def otce_influence(
    features: Tensor,
    labels: Tensor,
    source_features: Tensor,
    source_labels: Tensor,
    *,
    distance_weight: float = 0.0,
    max_samples: int = 1000,
    seed: int = 0,
) -> tuple[float, Tensor]:
    """Return ``otce`` and each target sample's influence on it, ``(n,)`` float64.

    Each sample's own expected ln P(y_t | y_s) less its weighted transport cost, with its partners held; where
    only some of the samples are taken, theirs stand for n / taken samples and the others have none.
    """
    options = (distance_weight, max_samples, seed)
    taken, own = _of_each_sample((features, labels), (source_features, source_labels), options)
    influence = torch.zeros(len(features), dtype=torch.float64, device=features.device)
    influence[taken] = own * (len(features) / len(taken))
    return own.mean().item(), influence


def _of_each_sample(
    target: tuple[Tensor, Tensor], source: tuple[Tensor, Tensor], options: tuple[float, int, int]
) -> tuple[Tensor, Tensor]:
    """Return the target samples taken (m,) and the terms (m,) whose mean is the score."""
    distance_weight, max_samples, seed = options
    (x, y), (source_x, source_y) = _checked(target, source)
    if distance_weight < 0:
        raise ValueError(f"`distance_weight` must be at least 0, got {distance_weight}. A larger distance is worse.")
    if max_samples < 2:
        raise ValueError(f"`max_samples` must be at least 2, got {max_samples}.")
    taken, source_taken = _stratified(x, y, max_samples, seed), _stratified(source_x, source_y, max_samples, seed)
    y, source_y = y[taken], source_y[source_taken]
    points, at, counts = x[taken].double().unique(dim=0, return_inverse=True, return_counts=True)  # u points
    source_points, source_at = source_x[source_taken].double().unique(dim=0, return_inverse=True)
    shares = points.new_zeros(int(source_y.max()) + 1, len(source_points))  # (k_s, u_s)  of each label and point
    shares.index_put_((source_y, source_at), shares.new_ones(()) / len(source_y), accumulate=True)

    cost, mass = squared_distances(source_points, points), shares.sum(dim=0)
    plan = exact_plan(cost.cpu().numpy(), mass.cpu().numpy(), (counts.double() / len(y)).cpu().numpy())
    per_sample = (torch.from_numpy(plan).to(x.device) / counts)[:, at]  # (u_s, m)  samples at one point share its mass
    to_sample = (shares / mass) @ per_sample  # (k_s, m)
    joint = to_sample.new_zeros(len(shares), int(y.max()) + 1).index_add_(1, y, to_sample)  # P(y_s, y_t)
    log_conditional = (joint / joint.sum(dim=1, keepdim=True)).log()[:, y]
    log_conditional[to_sample == 0] = 0  # 0 ln 0
    terms = (to_sample * log_conditional).sum(dim=0) - distance_weight * (per_sample * cost[:, at]).sum(dim=0)
    return taken, terms * len(y)


def _checked(
    target: tuple[Tensor, Tensor], source: tuple[Tensor, Tensor]
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    x, source_x = check_features(target[0]), check_features(source[0], "source_features")
    if source_x.shape[1] != x.shape[1]:
        raise ValueError(
            f"`source_features` must have {x.shape[1]} columns as `features` have, got {source_x.shape[1]}. "
            "Take both from one model and layer."
        )
    source_x = source_x.to(x.device)
    return (x, check_labels(target[1], x)), (source_x, check_labels(source[1], source_x))


def _stratified(x: Tensor, y: Tensor, most: int, seed: int) -> Tensor:
    """Return the indices of at most ``most`` samples, in an order that depends on their content only."""
    order = canonical_order(x)
    place = torch.empty(len(y), dtype=torch.float64)  # of a sample in its class: 0, 1/n_c, 2/n_c, ...
    ordered = y[order].cpu()
    for c in range(int(y.max()) + 1):
        members = (ordered == c).nonzero().flatten()
        shuffled = np.random.default_rng(seed).permutation(len(members))  # whatever the class is called
        place[members] = torch.from_numpy(shuffled / len(members))
    first = place.argsort(stable=True)[:most].sort().values
    return order[first.to(order.device)]
