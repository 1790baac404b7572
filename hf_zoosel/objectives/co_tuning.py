"""The loss of Co-Tuning: the pre-trained head goes on learning, from what each target class looks like to it."""

from torch import Tensor

from hf_zoosel.objectives._precision import at_least_float32


def co_tuning_loss(source_logits: Tensor, labels: Tensor, relationship_matrix: Tensor) -> Tensor:
    """Cross-entropy of the source head with the source classes related to each sample's target class.

    mean_i sum_s -p(s | y_i) log softmax(source_logits_i)_s, to be added to the cross-entropy of the target head
    with a weight (2.3 in the paper). Its least value is the mean entropy of the relationship, not 0.

    Args:
        source_logits: Output of the retained source head on target samples, shape ``(n, k_source)``.
        labels: Target class ids, shape ``(n,)``, in ``0..k_target - 1``.
        relationship_matrix: p(source class | target class), shape ``(k_target, k_source)``, rows summing to 1:
            ``category_relationship(...).matrix``. Taken to the type and device of the logits. Never trained.

    Returns:
        The loss, a scalar in nats, with a gradient for ``source_logits``.

    Raises:
        ValueError: If shapes disagree.

    Reference:
        You et al., "Co-Tuning for Transfer Learning", NeurIPS 2020, as in ``train.py`` of
        https://github.com/thuml/CoTuning.

    Example:
        >>> import torch
        >>> relationship = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
        >>> logits = torch.tensor([[3.0, 3.0, -9.0], [0.0, 0.0, 0.0]])
        >>> round(co_tuning_loss(logits, torch.tensor([0, 1]), relationship).item(), 4)  # (ln 2 + ln 3) / 2
        0.8959
    """
    shapes = tuple(source_logits.shape), tuple(labels.shape), tuple(relationship_matrix.shape)
    if len(shapes[0]) != 2 or len(shapes[2]) != 2 or shapes[1] != shapes[0][:1] or shapes[0][1] != shapes[2][1]:
        raise ValueError(
            f"`source_logits`, `labels` and `relationship_matrix` must have shapes (n, k_source), (n,) and (k_target, "
            f"k_source), got {shapes[0]}, {shapes[1]} and {shapes[2]}. Keep the head whose classes were related."
        )
    log_probs = at_least_float32(source_logits).log_softmax(dim=1)
    targets = relationship_matrix.detach().to(log_probs)[labels.to(log_probs.device)]
    return -(targets * log_probs).sum(dim=1).mean()
