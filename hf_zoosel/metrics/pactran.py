"""PACTran: a PAC-Bayesian bound on the loss of a linear head on the features."""

import math
import warnings

from torch import Tensor

from hf_zoosel.metrics._blocks import mean_row
from hf_zoosel.metrics._checks import check_features, check_labels
from hf_zoosel.metrics._softmax_head import fit_softmax_head
from hf_zoosel.metrics._spectrum import spectrum


def pactran(
    features: Tensor,
    labels: Tensor,
    *,
    looseness: float = 1.0,
    prior_variance: float = 10.0,
    unit_variance: bool = True,
) -> float:
    r"""PACTran-Gaussian: minus a bound on the expected loss of a softmax head, from its fit, size and flatness.

    The head (W, b) has prior N(0, s^2) on its D K weights and posterior N((W, b), t^2) around the fitted ones. To
    second order the PAC-Bayesian bound at the best t^2 is

        L(W, b) + |W|^2 / (2 lambda s^2) + K D / (2 lambda) ln(1 + lambda s^2 tr(H) / (K D))

    with L the mean cross-entropy and H its Hessian. The first two terms are minimised over (W, b), to rounding. As in
    the authors' code s^2 = ``prior_variance`` / D and lambda s^2 = ``looseness`` n, so the factor of
    the logarithm is K ``prior_variance`` / (2 n ``looseness``), b has no prior, and tr(H) includes b.

    Args:
        features: Penultimate features of the target samples, shape ``(n_samples, n_features)``, any float type;
            centred here; sums are in float64.
        labels: Target class ids, shape ``(n_samples,)``, any integers.
        looseness: lambda s^2 / n, positive: the larger, the less the weights are held to zero.
            The authors try 0.1, 1 and 10.
        prior_variance: D s^2, positive: weight of the flatness. The authors try 1 to 1000, 10 or
            100 times ``looseness``.
        unit_variance: Divide the features by one number, the root mean square of the centred features, so that
            their scale is immaterial. The authors do not: then networks with larger features score higher.

    Returns:
        Minus the bound, in nats per sample, negative; higher is better.

    Raises:
        ValueError: If shapes disagree, features are not finite, fewer than two classes
            are present, or an option is not positive.
        TypeError: If ``features`` are not floats or ``labels`` not integers.

    Warns:
        RuntimeWarning: If the head did not reach its optimum; the score is then too low.

    Reference:
        Ding et al., "PACTran: PAC-Bayesian Metrics for Estimating the Transferability of Pretrained
        Models to Classification Tasks", ECCV 2022, https://arxiv.org/abs/2203.05126, PACTran-Gaussian.
        Ours: unit variance; Newton's method from zero in place of 100 steps of L-BFGS from a random head; H is that
        of the mean loss, as the bound has it, where the authors' code sums it over the samples.

    Example:
        >>> import torch
        >>> features = torch.tensor([[0.0], [1.0], [2.0], [7.0], [8.0], [9.0]])
        >>> round(pactran(features, torch.tensor([0, 0, 0, 1, 1, 1])), 4)
        -1.832
    """
    return _bound(features, labels, (looseness, prior_variance, unit_variance))[0]


def pactran_influence(
    features: Tensor,
    labels: Tensor,
    *,
    looseness: float = 1.0,
    prior_variance: float = 10.0,
    unit_variance: bool = True,
) -> tuple[float, Tensor]:
    """Return ``pactran`` and each sample's influence on it, ``(n,)`` float64.

    The head, the centre and the scale of the features are held: minus the sample's own loss, and its own share in
    the logarithm. The head is at the optimum of the other terms, so only the flatness would change by moving it.
    """
    return _bound(features, labels, (looseness, prior_variance, unit_variance))


def _bound(features: Tensor, labels: Tensor, options: tuple[float, float, bool]) -> tuple[float, Tensor]:
    looseness, prior_variance, unit_variance = options
    x, y = check_features(features), check_labels(labels, features)
    for name, value in (("looseness", looseness), ("prior_variance", prior_variance)):
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"`{name}` must be positive, got {value}.")
    n, d, k = len(y), x.shape[1], int(y.max()) + 1
    inputs, variance = _coordinates(x)  # (n, r + 1)
    variance = 1.0 if unit_variance else variance
    penalty = inputs.new_full((inputs.shape[1],), 1 / (looseness * n * variance))
    penalty[-1] = 0  # b
    head = fit_softmax_head(inputs, y, penalty)
    if not head.converged:
        warnings.warn("the head of `pactran` did not reach its optimum: the score is too low", RuntimeWarning, 3)

    loss = -head.log_probs.gather(0, y[None]).flatten()  # (n,)
    size = 0.5 * (head.weights.square() @ penalty).sum().item()
    probs = head.log_probs.exp()
    norm2 = variance * inputs[:, :-1].square().sum(dim=1) + 1  # (n,)  |x|^2, and 1 for b
    trace = norm2 * (probs - probs.square()).sum(dim=0)  # (n,)  tr(H) is their mean
    ratio = looseness * n / (k * d)  # lambda s^2 / (K D)
    flat = k * prior_variance / (2 * looseness * n)  # K D / (2 lambda)
    bound = loss.mean().item() + size + flat * math.log1p(ratio * trace.mean().item())
    return -bound, -loss - flat * ratio * trace / (1 + ratio * trace.mean())


def _coordinates(x: Tensor) -> tuple[Tensor, float]:
    """Return principal components at unit mean square per feature and a column of ones (n, r + 1), and that square.

    A rotation changes no term of the bound and makes the head easy to fit; directions without variance carry none.
    """
    decomposed = spectrum(x, mean_row(x))
    kept = decomposed.values > 0
    variance = decomposed.values.sum().item() / x.numel() or 1.0  # constant features have no components to divide
    deviations = (decomposed.values[kept] / variance).sqrt()
    inputs = deviations.new_ones(len(x), len(deviations) + 1)
    for rows, left in decomposed.left():
        inputs[rows, :-1] = left[:, kept] * deviations
    return inputs, variance
