"""Static baselines: what a person knows without looking at the target. A metric that does not beat them is no use."""

import hashlib
import math


def size(n_parameters: int) -> float:
    """Millions of parameters: larger networks fine-tune better more often than not.

    On the zoos most papers use, a list in order of size beats most metrics (Singh et al., ICLR 2026, "How NOT to
    benchmark your SITE metric"). The same for every target.

    Args:
        n_parameters: Parameters of the whole network.

    Returns:
        The number in millions; higher is better.

    Raises:
        ValueError: If it is not positive.

    Example:
        >>> size(4_652_008)
        4.652008
    """
    if n_parameters <= 0:
        raise ValueError(f"`n_parameters` must be positive, got {n_parameters}. Load the network first.")
    return n_parameters / 1e6


def source_accuracy(accuracy: float) -> float:
    """Accuracy on the data the checkpoint was trained on, as it was published with it.

    The same for every target. Kornblith et al., "Do better ImageNet models transfer better?", CVPR 2019,
    https://arxiv.org/abs/1805.08974

    Args:
        accuracy: Top-1 accuracy in [0, 1].

    Returns:
        The accuracy; higher is better.

    Raises:
        ValueError: If it is outside [0, 1].

    Example:
        >>> source_accuracy(0.751)
        0.751
    """
    if not (math.isfinite(accuracy) and 0 <= accuracy <= 1):
        raise ValueError(f"`accuracy` must be in [0, 1], got {accuracy}. Divide a percentage by 100.")
    return float(accuracy)


def random_score(identity: str, *, seed: int = 0) -> float:
    """Draw a number in [0, 1) for a candidate: the honest baseline, without any knowledge.

    Args:
        identity: Text that no other candidate has; one candidate has the same number for every target.
        seed: Another one draws other numbers.

    Example:
        >>> random_score("timm/resnet50.a1_in1k") == random_score("timm/resnet50.a1_in1k")
        True
    """
    drawn = hashlib.blake2b(f"{seed} {identity}".encode(), digest_size=8).digest()
    return int.from_bytes(drawn, "big") / 2**64
