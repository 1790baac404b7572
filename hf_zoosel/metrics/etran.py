"""ETran: are the classes separable, and does the source head know such images? Relative to the other candidates."""

import math

import torch
from torch import Tensor

from hf_zoosel.metrics._blocks import per_row
from hf_zoosel.metrics._checks import check_features, check_labels
from hf_zoosel.metrics._discriminant import posteriors, shrinkage_of
from hf_zoosel.metrics._min_max import min_max
from hf_zoosel.metrics._scatter import scatter_of

LOWEST = 0.005
_WEIGHTS = (0.85, 0.15)


def etran_terms(
    features: Tensor, source_logits: Tensor, labels: Tensor, *, lowest: float = LOWEST, held_out: bool = True
) -> tuple[float, float]:
    r"""Classification score and energy score of one candidate, to be combined by ``etran_over_zoo``.

    The first is the mean posterior of the right class under the shrunk discriminant analysis of ``sfda``, on features
    as they are. The second is the mean of log sum_z exp(logit_z), minus the energy, over the samples where it is
    lowest: those that look least like the source data.

    Args:
        features: Penultimate features of the target samples, shape ``(n_samples, n_features)``, any float type;
            sums are in float64.
        source_logits: Output of the model's original head before the softmax, shape
            ``(n_samples, n_source_classes)``. A softmax would not do: its log-sum-exp has lost the energy.
        labels: Target class ids, shape ``(n_samples,)``, any integers.
        lowest: Fraction of the samples that the energy is averaged over, in (0, 1], at least one sample. The
            authors' 0.005 is a handful of samples and a noisy mean; 1 takes all.
        held_out: Whether each sample is judged by the discriminant fitted to the others. False is the paper's form,
            which is 1 for every model with as many features as samples: see ``sfda``.

    Returns:
        The mean posterior, in [0, 1], and the energy score, in units of logits; of both, higher is better. Neither is
        the score: ETran compares candidates, and the score of one depends on the others.

    Raises:
        ValueError: If shapes disagree, values are not finite, fewer than two classes are present, or ``lowest`` is
            not in (0, 1].
        TypeError: If ``features`` or ``source_logits`` are not floats or ``labels`` not integers.

    Reference:
        Gholami et al., "ETran: Energy-Based Transferability Estimation", ICCV 2023, classification form,
        https://arxiv.org/abs/2308.02027. Unlike the authors' code: the energy is that of the source logits, where
        their ranking script passes the penultimate features; a small sample has at least one lowest energy instead
        of the mean of none; the discriminant has the within-class metric, where theirs takes a symmetric
        eigendecomposition of a matrix that is not symmetric and so compares plain distances; and ``held_out``.

    Example:
        >>> import torch
        >>> features = torch.tensor([[0.0, 1.0], [0.2, 0.4], [0.7, 1.3], [0.5, 0.8], [1.1, 0.1], [1.2, 0.9]])
        >>> logits = torch.tensor([[5.0, 0.0], [4.0, 1.0], [6.0, 0.0], [0.0, 3.0], [1.0, 4.0], [0.0, 5.0]])
        >>> [round(term, 4) for term in etran_terms(features, logits, torch.tensor([0, 0, 0, 1, 1, 1]))]
        [0.5462, 3.0486]
    """
    if not 0 < lowest <= 1:
        raise ValueError(f"`lowest` must be in (0, 1], got {lowest}. It is the fraction of samples with least energy.")
    x, y = check_features(features), check_labels(labels, features)
    logits = check_features(source_logits, "source_logits")
    if len(logits) != len(x):
        raise ValueError(f"`source_logits` must have {len(x)} rows, one per row of `features`, got {len(logits)}.")
    scatter = scatter_of(x, y)
    separable = posteriors(scatter, shrinkage_of(scatter), held_out=held_out).mean().item()
    energies = per_row(logits, lambda _, block: block.logsumexp(dim=1))
    count = max(1, math.floor(round(lowest * len(x), 9)))
    return separable, energies.topk(count, largest=False).values.mean().item()


def etran_over_zoo(terms: Tensor) -> Tensor:
    """Combine the terms of all candidates: 0.85 of the classification score and 0.15 of the energy score.

    Each term is first scaled to [0, 1] over the candidates, so every score depends on which others there are: adding
    one can reverse the order of two. A term that is equal for all, as with a single candidate, adds 0 to each.

    Args:
        terms: What ``etran_terms`` returns for each of m candidates, shape ``(m, 2)``.

    Returns:
        Scores in [0, 1], shape ``(m,)``, float64; higher is better.

    Raises:
        ValueError: If ``terms`` has another shape or is not finite.
        TypeError: If ``terms`` are not floats.

    Reference:
        Gholami et al., ICCV 2023, https://arxiv.org/abs/2308.02027; the weights are those of the authors' code.

    Example:
        >>> import torch
        >>> etran_over_zoo(torch.tensor([[0.5, 10.0], [0.9, 8.0], [0.7, 9.0]])).tolist()
        [0.15, 0.85, 0.5]
    """
    return min_max(terms, 2) @ torch.tensor(_WEIGHTS, dtype=torch.float64, device=terms.device)
