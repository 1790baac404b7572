"""NCE: how well the source class that a model picks tells the target label."""

import torch
from torch import Tensor

from hf_zoosel.metrics._blocks import row_slices
from hf_zoosel.metrics._checks import check_labels, check_probs


def nce(source_probs: Tensor, labels: Tensor) -> float:
    """Negative conditional entropy -H(Y | Z) of the target label given the predicted source class.

    Z is the source class of the largest probability, the first of them in a tie. On predictions of
    0 and 1 it equals LEEP. It tends to 0 as samples per source class in use get few: compare models
    on one sample of one target only.

    Args:
        source_probs: Softmax output of the model's original head on the target
            samples, shape ``(n_samples, n_source_classes)``.
        labels: Target class ids, shape ``(n_samples,)``, any integers.

    Returns:
        Score in nats per sample, between -H(Y) and 0; higher is better.

    Raises:
        ValueError: If shapes disagree, rows are not probabilities, or fewer than
            two classes are present.
        TypeError: If ``source_probs`` are not floats or ``labels`` not integers.

    Reference:
        Tran et al., "Transferability and Hardness of Supervised Classification Tasks",
        ICCV 2019. https://arxiv.org/abs/1908.08142. The paper has source labels of
        the samples; with another target's images the model's predictions stand for them.

    Example:
        >>> import torch
        >>> probs = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.1, 0.9]])
        >>> round(nce(probs, torch.tensor([0, 0, 1, 1])), 4)
        -0.4774
    """
    return nce_influence(source_probs, labels)[0]


def nce_influence(source_probs: Tensor, labels: Tensor) -> tuple[float, Tensor]:
    """Return ``nce`` and each sample's influence on it, ``(n,)`` float64: its own ln P(y | z).

    That is the exact derivative: what a sample teaches P(y | z) sums to zero, as those are its best values.
    """
    theta = check_probs(source_probs, "source_probs")  # (n, z)
    y = check_labels(labels, theta)
    z = torch.cat([theta[rows].argmax(dim=1) for rows in row_slices(theta)])  # (n,)

    _, cells, in_cell = torch.unique(y * theta.shape[1] + z, return_inverse=True, return_counts=True)
    log_conditional = (in_cell.double()[cells] / z.bincount().double()[z]).log()
    return log_conditional.mean().item(), log_conditional
