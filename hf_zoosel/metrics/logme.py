"""LogME: the evidence of a Bayesian linear model of the labels on the features."""

from torch import Tensor
from torch.nn.functional import one_hot

from hf_zoosel.metrics._checks import check_features, check_labels
from hf_zoosel.metrics._evidence import fit_evidence, log_densities_of_one_left_out
from hf_zoosel.metrics._spectrum import projected_spectrum, spectrum


def logme(features: Tensor, labels: Tensor) -> float:
    r"""Log of the maximum evidence: how probable are the labels under a linear model of the features?

    For the column y of each class (1 for its samples, 0 for others), Bayesian linear regression on the features F
    has y ~ N(0, I / beta + F F^T / alpha). The log density is maximised over alpha and beta, divided by the number
    of samples and averaged over classes. The best beta is n / Q(t) for any ratio t = alpha / beta, so with s_k the
    squared singular values of F and x_k the projections of y on its left singular vectors one maximises

        L(t) = 1/2 sum_k ln(t / (t + s_k)) + n/2 ln(n / Q(t)) - n/2 - n/2 ln 2 pi
        Q(t) = sum_k x_k^2 t / (t + s_k) + |y|^2 - |x|^2

    over ln t, for all classes at once: a grid, then Newton steps within the best bracket. It is exact on both sides
    of n = d and for any scale of F. Both limits, t -> 0 (interpolation, n <= d) and t -> infinity (no signal), are
    finite and reached to rounding. A residual of zero with fewer directions than samples has unbounded evidence:
    residuals count as at least 1e-12 of |y|^2 there, which bounds the score near 14 nats.

    Args:
        features: Penultimate features of the target samples, shape ``(n_samples, n_features)``, any float type;
            not centred, as in the paper; sums are in float64.
        labels: Target class ids, shape ``(n_samples,)``, any integers.

    Returns:
        Score in nats per sample; higher is better. Compare models on one sample of one target only.

    Raises:
        ValueError: If shapes disagree, features are not finite, or fewer than two classes are present.
        TypeError: If ``features`` are not floats or ``labels`` not integers.

    Reference:
        You et al., "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", ICML 2021,
        Algorithm 1, https://arxiv.org/abs/2102.11005. The maximum is found directly instead of by the
        fixed-point iteration, and no epsilon enters; the authors' later code lacks (D - k)/2 ln alpha for n < d.

    Example:
        >>> import torch
        >>> features = torch.tensor([[1.0, 0.1], [0.9, 0.0], [0.1, 1.0], [0.0, 0.8], [0.2, 1.1]])
        >>> round(logme(features, torch.tensor([0, 0, 1, 1, 1])), 4)
        -0.0962
    """
    x, y = check_features(features), check_labels(labels, features)
    values, projected = projected_spectrum(x, one_hot(y).double())
    return fit_evidence(values, projected, y.bincount().double(), len(y)).evidence.mean().item() / len(y)


def logme_influence(features: Tensor, labels: Tensor) -> tuple[float, Tensor]:
    """Return ``logme`` and each sample's influence on it, ``(n,)`` float64: what leaving it out takes away.

    That is ln p(y_i | the other labels), averaged over classes, at the alpha and beta of all samples (they are at
    their maximum, so moving them changes nothing to first order). With r the residual and h the leverage of the
    posterior mean, it is 1/2 ln(beta (1 - h_i) / 2 pi) - beta/2 r_i^2 / (1 - h_i).

    The derivative in a continuous weight differs from it by terms in h_i and is no use for n < d: as alpha / beta
    goes to 0 it vanishes for every sample, whatever their number, and would give intervals of no width.
    """
    x, y = check_features(features), check_labels(labels, features)
    decomposed, k = spectrum(x), int(y.max()) + 1
    fit = fit_evidence(decomposed.values, decomposed.project(y), y.bincount().double(), len(y))  # |y|^2 = n_c
    influence = log_densities_of_one_left_out(decomposed, fit, lambda rows: one_hot(y[rows], k))
    return fit.evidence.mean().item() / len(y), influence
