"""PACTran (arXiv:2203.05126): the Gaussian bound from dense derivatives; the ascents of the authors' code."""

import numpy as np
from scipy.special import digamma, loggamma, logsumexp


def log_softmax_as_written(x, w, b):
    logits = x @ w + b
    return logits - logsumexp(logits, axis=1, keepdims=True)


def head_as_written(x, onehot, penalty):
    """Newton's method with the full Hessian over ((d + 1) k,) weights; the last row of weights is b, not penalised."""
    n, k = onehot.shape
    inputs, held = np.column_stack([x, np.ones(n)]), np.append(np.full(x.shape[1], penalty), 0.0)

    def loss(theta):
        log_p = log_softmax_as_written(x, theta[:-1], theta[-1])
        return -(onehot * log_p).sum() / n + 0.5 * (held[:, None] * theta**2).sum()

    theta = np.zeros((len(held), k))
    for _ in range(200):
        p = np.exp(log_softmax_as_written(x, theta[:-1], theta[-1]))
        gradient = inputs.T @ (p - onehot) / n + held[:, None] * theta
        hessian = np.diag(np.repeat(held, k))
        for row, q in zip(inputs, p, strict=True):
            hessian += np.kron(np.outer(row, row), np.diag(q) - np.outer(q, q)) / n
        step = -np.linalg.lstsq(hessian, gradient.ravel(), rcond=1e-13)[0].reshape(theta.shape)
        length = 1.0
        while loss(theta + length * step) > loss(theta) + 1e-13 and length > 1e-6:
            length /= 2
        theta = theta + length * step
        if np.abs(step).max() < 1e-12 * (1 + np.abs(theta).max()):
            break
    return theta[:-1], theta[-1]


def pactran_as_written(features, labels, looseness=1.0, prior_variance=10.0, unit_variance=True):
    """L + |W|^2 / (2 lambda s^2) + K D / (2 lambda) ln(1 + lambda s^2 tr(H) / (K D)), negated."""
    x, y = features.double().numpy(), labels.numpy()
    onehot = (y[:, None] == np.unique(y)).astype(float)
    (n, d), k = x.shape, onehot.shape[1]
    x = x - x.mean(axis=0)
    x = x / np.sqrt((x**2).mean()) if unit_variance and x.any() else x
    s2 = prior_variance / d
    lam = looseness * n / s2

    w, b = head_as_written(x, onehot, 1 / (lam * s2))
    log_p = log_softmax_as_written(x, w, b)
    trace = 0.0
    for row, p in zip(x, np.exp(log_p), strict=True):
        trace += sum(p[c] * (1 - p[c]) * (row @ row + 1) for c in range(k)) / n
    loss = -(onehot * log_p).sum() / n + (w**2).sum() / (2 * lam * s2)
    return -(loss + k * d / (2 * lam) * np.log(1 + lam * s2 * trace / (k * d)))


def responsibilities_as_written(s, logits):
    with np.errstate(divide="ignore"):
        log_q = np.log(s) + logits
    return np.exp(log_q - logsumexp(log_q, axis=1, keepdims=True))


def divergence_as_written(q, s):
    """Sum of q ln(q / s), where 0 ln 0 = 0."""
    return sum(a * np.log(a / b) for a, b in zip(q.ravel(), s.ravel(), strict=True) if a > 0)


def pactran_dirichlet_as_written(source_probs, labels, alpha=1.0, steps=10):
    s, y = source_probs.double().numpy(), labels.numpy()
    onehot = (y[:, None] == np.unique(y)).astype(float)
    prior, q = alpha * onehot.mean(axis=0)[:, None], s / s.sum(axis=1, keepdims=True)
    for _ in range(steps):
        a = prior + onehot.T @ q
        q = responsibilities_as_written(s, onehot @ digamma(a) - digamma(a.sum(axis=0)))
    a = prior + onehot.T @ q
    log_c0 = loggamma(prior.sum()) - loggamma(prior).sum()
    log_c = loggamma(a.sum(axis=0)) - loggamma(a).sum(axis=0)
    return ((log_c0 - log_c).sum() - divergence_as_written(q, s)) / len(y)


def pactran_gamma_as_written(source_probs, labels, alpha=1.0, steps=10):
    """The fit E ln v and the divergence of v from its prior, each as it stands; the rate is 1 throughout."""
    s, y = source_probs.double().numpy(), labels.numpy()
    onehot = (y[:, None] == np.unique(y)).astype(float)
    prior, q = alpha * onehot.mean(axis=0)[:, None], s / s.sum(axis=1, keepdims=True)
    for _ in range(steps):
        q = responsibilities_as_written(s, onehot @ digamma(prior + onehot.T @ q))
    a = prior + onehot.T @ q
    fit = (q * (onehot @ digamma(a))).sum() - divergence_as_written(q, s) - np.log(s @ a.sum(axis=0)).sum()
    divergence = ((a - prior) * digamma(a) - loggamma(a) + loggamma(prior)).sum()
    return (fit - divergence) / len(y)
