"""Unlabelled source images: the target head must say of a strong augmentation what it says of a weak one."""

from torch import Tensor

from hf_zoosel.objectives._precision import at_least_float32


def consistency_loss(
    weak_logits: Tensor, strong_logits: Tensor, *, temperature: float = 1.0, threshold: float = 0.0
) -> Tensor:
    """Cross-entropy of the strongly augmented view with the prediction for the weakly augmented one.

    mean_i [max_c q_ic >= threshold] * sum_c -q_ic log softmax(strong_logits_i)_c with q = softmax(weak_logits /
    temperature), which gets no gradient. The mean is over all samples, those below the threshold included.

    Args:
        weak_logits: Output of the target head for the weak views, shape ``(n, k)``.
        strong_logits: The same for the strong views of the same images, shape ``(n, k)``.
        temperature: Divides ``weak_logits``, above 0; below 1 sharpens the prediction.
        threshold: Least largest probability that counts, in [0, 1]; 0 counts all.

    Returns:
        The loss, a scalar in nats, at least 0, with a gradient for ``strong_logits`` alone.

    Raises:
        ValueError: If shapes disagree, or an option is outside its range.

    Reference:
        Liu et al., "Improved Fine-Tuning by Better Leveraging Pre-Training Data", NeurIPS 2022, Eq. 7,
        https://arxiv.org/abs/2111.12292, after Sohn et al., "FixMatch", NeurIPS 2020,
        https://arxiv.org/abs/2001.07685, whose hard pseudo-labels are soft here.

    Example:
        >>> import torch
        >>> weak, strong = torch.tensor([[9.0, -9.0], [0.1, 0.0]]), torch.zeros(2, 2)
        >>> round(consistency_loss(weak, strong, threshold=0.95).item(), 4)  # ln 2 from the first of two
        0.3466
    """
    if weak_logits.ndim != 2 or weak_logits.shape != strong_logits.shape:
        raise ValueError(
            "`weak_logits` and `strong_logits` must have one shape (n, k), got "
            f"{tuple(weak_logits.shape)} and {tuple(strong_logits.shape)}. Pass two views of the same images."
        )
    if not temperature > 0:
        raise ValueError(f"`temperature` must be above 0, got {temperature}. Use 1 for the prediction as it is.")
    if not 0 <= threshold <= 1:
        raise ValueError(f"`threshold` must be in [0, 1], got {threshold}. Use 0 to count every sample.")
    pseudo = (at_least_float32(weak_logits.detach()) / temperature).softmax(dim=1)
    loss = -(pseudo * at_least_float32(strong_logits).log_softmax(dim=1)).sum(dim=1)
    return (loss * (pseudo.amax(dim=1) >= threshold)).mean()
