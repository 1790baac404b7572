"""Learning without forgetting: keep saying of target images what the start network said (Li and Hoiem 2016)."""

from torch import Tensor
from torch.nn.functional import kl_div

from hf_zoosel.objectives._precision import at_least_float32


def lwf(kept_logits: Tensor, start_logits: Tensor, *, temperature: float = 2.0) -> Tensor:
    """Distil the frozen start network into the source head that was kept, on target images.

    Args:
        kept_logits: Of the kept source head, on the trained backbone, shape ``(n, k_source)``.
        start_logits: Of the start network on the same images, the same shape. No gradient flows to them.
        temperature: Divides both; above 1 the small probabilities count for more.

    Returns:
        Kullback-Leibler divergence of softmax(kept / T) from softmax(start / T), mean over the n images; a scalar of
        at least float32, >= 0, and 0 at the start.

    Raises:
        ValueError: If the shapes differ or are not 2-D, or ``temperature`` is not above 0.

    Reference:
        Li and Hoiem, "Learning without forgetting", ECCV 2016, https://arxiv.org/abs/1606.09282, Eq. 2-3, with its
        T = 2 and its weight lambda_o = 1. The paper takes the cross-entropy, which is larger by the entropy of the
        start network, a constant: the gradients are the same, and here the start is 0. No factor T^2, as in the
        paper; Hinton's scaling and the Transfer-Learning-Library (T = 3, weight 4) have it: multiply the strength
        by ``temperature ** 2`` for theirs. The recorded responses are of the same augmented images, not of one view.

    Example:
        >>> import torch
        >>> lwf(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0.0]]))
        tensor(0.1201)
    """
    if kept_logits.ndim != 2 or kept_logits.shape != start_logits.shape:
        raise ValueError(
            "`kept_logits` and `start_logits` must be (n_samples, n_source_classes) of the same images and head, got "
            f"shapes {tuple(kept_logits.shape)} and {tuple(start_logits.shape)}. Keep the checkpoint's own classifier."
        )
    if not temperature > 0:
        raise ValueError(f"`temperature` must be above 0, got {temperature}. The paper uses 2.")
    log_q = (at_least_float32(start_logits.detach()) / temperature).log_softmax(dim=1)
    log_p = (at_least_float32(kept_logits) / temperature).log_softmax(dim=1)
    return kl_div(log_p, log_q, reduction="batchmean", log_target=True)
