"""SFDA: does a Fisher discriminant tell the classes apart, once its hard samples are made harder?"""

import warnings

from torch import Tensor

from hf_zoosel.metrics._checks import check_features, check_labels
from hf_zoosel.metrics._discriminant import posteriors, shrinkage_of
from hf_zoosel.metrics._scatter import scatter_of

_SATURATED = 1e-12  # a mean posterior so near 1 orders nothing


def sfda(features: Tensor, labels: Tensor, *, held_out: bool = True) -> float:
    r"""Self-challenging Fisher discriminant analysis: the mean posterior of the right class on hardened features.

    With m_c and q_c the mean and frequency of class c, S_W the within-class covariance (over n) and v its mean
    eigenvalue, a shrunk discriminant analysis gives each sample the posterior of its own class y:

        shrinkage = max(exp(-5 lambda_max(S_W)), 1e-10)
        A = ((1 - shrinkage) S_W + shrinkage v I)^-1
        p_i = softmax_c(x_i^T A m_c - 1/2 m_c^T A m_c + log q_c)  at c = y_i

    Then each sample moves toward the other classes the more, the less sure it is of its own (ConfMix):
    x_i <- p_i x_i + (1 - p_i) * mean of the m_c with c != y_i. The same analysis of the moved samples, with the same
    shrinkage, gives the p_i whose mean is the score.

    The paper judges the classifier on the samples that it was fitted to. With no more samples than features that
    saturates: every sample fits, whatever its label, and all wide models tie at 1. The paper's shrinkage is no
    remedy: it falls to its floor as soon as lambda_max exceeds 4.6. So by default the second analysis judges sample i
    by the classifier fitted without it (means, S_W, n and q; shrinkage and v stay), in closed form. The first one
    does not: a confidence of exactly 0 would put the hard samples of a class on one point, where they are easy.

    Held out, the score dips where samples and features are about as many and the shrinkage is at its floor. Features
    scaled to unit length keep lambda_max below 1 and the shrinkage above 0.006.

    Args:
        features: Penultimate features of the target samples, shape ``(n_samples, n_features)``, any float type;
            sums are in float64. The shrinkage depends on their scale, as in the paper.
        labels: Target class ids, shape ``(n_samples,)``, any integers.
        held_out: Whether the second analysis judges each sample by the others. False is the paper's form; it
            favours wide models even where it does not saturate.

    Returns:
        Mean posterior in [0, 1]; higher is better. The only sample of a class scores 0 where held out. Features
        that are equal for all samples score as the class frequencies do.

    Raises:
        ValueError: If shapes disagree, features are not finite, or fewer than two classes are present.
        TypeError: If ``features`` are not floats or ``labels`` not integers.

    Warns:
        UserWarning: If ``held_out`` is False and the score is within 1e-12 of 1.

    Reference:
        Shao et al., "Not All Models Are Equal: Predicting Model Transferability in a Self-challenging Fisher Space",
        ECCV 2022, Eqs. 2-7, https://arxiv.org/abs/2207.03036. From the authors' code, where the paper is at odds
        with itself: the exponent 5 and the floor of the shrinkage, v I for I, and the mean of p where Eq. 1 has the
        sum of log p, which has no finite value for a p of 0. Unlike their code: lambda_max is exact instead of three
        steps of power iteration, p enters ConfMix as it is instead of through a second softmax, and ``held_out``.

    Example:
        >>> import torch
        >>> features = torch.tensor([[0.0, 1.0], [0.2, 0.4], [0.7, 1.3], [0.5, 0.8], [1.1, 0.1], [1.2, 0.9]])
        >>> labels = torch.tensor([0, 0, 0, 1, 1, 1])
        >>> round(sfda(features, labels), 4), round(sfda(features, labels, held_out=False), 4)
        (0.4529, 0.7016)
    """
    return _hardened_posteriors(features, labels, held_out).mean().item()


def sfda_influence(features: Tensor, labels: Tensor, *, held_out: bool = True) -> tuple[float, Tensor]:
    """Return ``sfda`` and the posterior of each sample's class, ``(n,)`` float64.

    Re-weighting it resamples the samples that are judged and holds the two classifiers that judge them.
    """
    probs = _hardened_posteriors(features, labels, held_out)
    return probs.mean().item(), probs


def _hardened_posteriors(features: Tensor, labels: Tensor, held_out: bool) -> Tensor:
    x, y = check_features(features), check_labels(labels, features)
    scatter = scatter_of(x, y)
    shrinkage = shrinkage_of(scatter)
    scatter = scatter.mixed(posteriors(scatter, shrinkage, held_out=False))  # Eq. 7
    probs = posteriors(scatter, shrinkage, held_out=held_out)
    if not held_out and probs.mean() > 1 - _SATURATED:
        warnings.warn(
            f"sfda is saturated: with {x.shape[1]} features all {len(y)} samples fit, and a score of 1 orders no "
            "models. Use `held_out=True`.",
            stacklevel=3,
        )
    return probs
