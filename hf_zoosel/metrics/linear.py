"""Linear probe: leave-one-out accuracy of ridge regression on the labels, in closed form."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import one_hot

from hf_zoosel.metrics._blocks import mean_row
from hf_zoosel.metrics._checks import check_features, check_labels
from hf_zoosel.metrics._spectrum import Spectrum, spectrum

STRENGTHS = tuple(10.0**power for power in range(3, -7, -1))  # strong first: of two equal errors, the smoother fit

_TIE = 1e-9  # of the targets' unit: predictions this close are equal


def linear(features: Tensor, labels: Tensor, *, strengths: Sequence[float] = STRENGTHS) -> float:
    """Leave-one-out accuracy of a ridge classifier with one-hot targets and an intercept.

    No model is refitted: leaving sample i out changes its residual from r_i to
    r_i / (1 - h_ii), with h_ii the diagonal of the hat matrix, intercept included. One
    strength serves all classes, the one with the least squared leave-one-out residual.

    Classes whose predictions tie for the largest share the vote. Features without any
    information can fall below chance: a class is rarer by one when its sample is left out.

    Args:
        features: Penultimate features of the target samples, shape ``(n_samples,
            n_features)``, any float type; sums are in float64.
        labels: Target class ids, shape ``(n_samples,)``, any integers.
        strengths: Candidate strengths of the penalty on squared weights, in units of the mean
            non-zero eigenvalue of the features' scatter, so that the scale of features is
            immaterial; tried in this order.

    Returns:
        Accuracy in [0, 1]; higher is better.

    Raises:
        ValueError: If shapes disagree, features are not finite, fewer than two classes
            are present, or ``strengths`` are not positive.
        TypeError: If ``features`` are not floats or ``labels`` not integers.

    Reference:
        Allen, "The Relationship between Variable Selection and Data Augmentation and a
        Method for Prediction", 1974 (PRESS), https://doi.org/10.1080/00401706.1974.10489157

    Example:
        >>> import torch
        >>> features = torch.tensor([[0.0], [1.0], [2.0], [7.0], [8.0], [9.0]])
        >>> linear(features, torch.tensor([0, 0, 0, 1, 1, 1]))
        1.0
    """
    return linear_influence(features, labels, strengths=strengths)[0]


def linear_influence(
    features: Tensor, labels: Tensor, *, strengths: Sequence[float] = STRENGTHS
) -> tuple[float, Tensor]:
    """Return ``linear`` and the correctness of each sample, ``(n,)`` float64.

    Re-weighting it resamples the samples that are judged and holds the classifiers that judge them.
    A naive bootstrap would leave copies of the left-out sample in the training set.
    """
    if len(strengths) == 0 or min(strengths) <= 0:
        raise ValueError(f"`strengths` must be positive and at least one, got {list(strengths)}.")
    x, y = check_features(features), check_labels(labels, features)
    errors, right = _leave_one_out(spectrum(x, mean_row(x)), y, strengths)
    best = right[int(errors.argmin())]
    return best.mean().item(), best


def _leave_one_out(decomposed: Spectrum, y: Tensor, strengths: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Return the summed squared residuals (m,) and the correctness (m, n) for each of m strengths."""
    n, values, projected = len(y), decomposed.values, decomposed.project(y)  # (r,), (r, k)
    scale = values.sum().item() / max(1, values.count_nonzero().item()) or 1.0  # constant features: any will do
    shares = [values / (values + strength * scale) for strength in strengths]
    priors = y.bincount().double() / n
    errors, right = values.new_zeros(len(strengths)), values.new_zeros(len(strengths), n)
    for rows, left in decomposed.left():  # (b, r)
        targets = one_hot(y[rows], len(priors)).double()
        for m, share in enumerate(shares):
            leverage = left.square() @ share + 1 / n
            residual = targets - priors - left @ (share[:, None] * projected)
            residual = residual / (1 - leverage).clamp_min(1e-12)[:, None]
            errors[m] += residual.square().sum()
            right[m, rows] = _vote(targets - residual, y[rows])
    return errors, right


def _vote(predictions: Tensor, y: Tensor) -> Tensor:
    """Return 1 over the number of classes that share the largest prediction where y is one of them, else 0."""
    largest = predictions >= predictions.amax(dim=1, keepdim=True) - _TIE  # (b, k)
    return largest.gather(1, y[:, None]).squeeze(1).double() / largest.sum(dim=1)
