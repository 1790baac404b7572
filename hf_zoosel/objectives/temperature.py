"""The temperature that calibrates a classifier: one number, by the log-likelihood of labelled logits."""

import math
import warnings

from torch import Tensor

from hf_zoosel.objectives._rows import check_class_ids, check_rows

_LEAST, _MOST = 1e-3, 1e3  # widest gap between two logits of a sample, after division, in nats
_BLOCK = 2**21  # logits that are in float64 at one time


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Find the temperature T that minimises the negative log-likelihood of ``logits / T``.

    The loss is convex in 1 / T, so its derivative has one root, found by Brent's method in ln(1 / T).
    T is searched where the widest gap between two logits of one sample becomes 0.001 to 1,000 nats,
    so ``fit_temperature(a * logits, labels) == a * fit_temperature(logits, labels)`` for a > 0.

    Without an optimum the bound on its side is returned, with a warning: labels that all have the largest logit
    want T = 0, logits that tell nothing or the wrong thing want T = infinity. Logits that are
    equal within every sample have the same loss for every T: the result is 1.

    Args:
        logits: What the classifier says, shape ``(n, k)``, any float type; sums are in float64. Not those
            it was trained on: they are more certain than new ones.
        labels: Class ids, columns of ``logits``, shape ``(n,)``.

    Returns:
        The temperature, above 0; above 1 for a classifier that is too sure of itself.

    Raises:
        ValueError: If shapes disagree, logits are not finite, or a label is not a column.
        TypeError: If ``logits`` are not floats or ``labels`` not integers.

    Reference:
        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, Section 4.2.
        https://arxiv.org/abs/1706.04599. Deviation: a root of the derivative in place of a general minimiser.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [4.0, 0.0]])
        >>> round(fit_temperature(logits, torch.tensor([0, 0, 0, 1])), 4)  # right in 3 of 4: 4 / ln 3
        3.641
    """
    logits = check_rows(logits, "logits")
    labels = check_class_ids(labels, logits, "labels", logits.shape[1])
    temperature, side = temperature_and_side(logits, labels)
    if side:
        why = "no sample contradicts the logits" if side == "low" else "the logits tell nothing of the labels"
        warnings.warn(
            f"the temperature has no optimum, as {why}: {temperature:.3g} is the {side} end of the search. "
            "Use more samples, none of which the classifier was trained on.",
            RuntimeWarning,
            stacklevel=2,
        )
    return temperature


def temperature_and_side(logits: Tensor, labels: Tensor) -> tuple[float, str]:
    """Return the temperature, and "low" or "high" where it is an end of the search, else an empty string."""
    from scipy.optimize import brentq

    width = (logits.amax(dim=1).double() - logits.amin(dim=1).double()).max().item()
    if width == 0:
        return 1.0, ""
    low, high = math.log(_LEAST / width), math.log(_MOST / width)  # of ln(1 / T)

    def slope(log_inverse: float) -> float:
        return _slope(logits, labels, math.exp(log_inverse))

    if slope(high) <= 0:
        return width / _MOST, "low"
    if slope(low) >= 0:
        return width / _LEAST, "high"
    return math.exp(-brentq(slope, low, high, xtol=1e-14, rtol=1e-14)), ""


def _slope(logits: Tensor, labels: Tensor, inverse: float) -> float:
    """Return the derivative of the mean negative log-likelihood in 1 / T: mean_i(E_p[z_i] - z_i,label)."""
    total = 0.0
    step = max(1, _BLOCK // logits.shape[1])
    for block, y in zip(logits.split(step), labels.split(step), strict=True):
        z = block.double()
        z = z - z.gather(1, y[:, None])  # relative to the label's: no digits are lost to what all classes share
        total += ((inverse * z).softmax(dim=1) * z).sum().item()
    return total / len(labels)
