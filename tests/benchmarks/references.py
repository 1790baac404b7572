"""Straightforward vectorised forms of the metrics, in float64: what a person would write with NumPy and libraries.

Each takes what the metric needs and returns its score, or its terms where it is zoo-relative. They are the measure
of speed at sizes that the literal transcriptions in ``tests/metrics/transcriptions`` do not reach.
"""

from functools import partial

import numpy as np

_STRENGTHS = 10.0 ** np.arange(3, -7, -1)


def lfc(features, labels, *, centered=False, cosine=False):
    """Both n x n matrices."""
    f, y = _numpy(features, labels)
    f = f - f.mean(axis=0) if centered else f
    f = f / np.linalg.norm(f, axis=1, keepdims=True) if cosine else f
    theta, kernel = f @ f.T, np.where(y[:, None] == y, 1.0, -1.0)
    theta, kernel = theta - theta.mean(), kernel - kernel.mean()
    return (theta * kernel).sum() / np.linalg.norm(theta) / np.linalg.norm(kernel)


def leep(source_probs, labels):
    """A loop over target classes."""
    theta, y = _numpy(source_probs, labels)
    joint = np.stack([theta[y == c].sum(axis=0) for c in np.unique(y)]) / len(y)  # (k, z)
    conditional = joint / joint.sum(axis=0)
    return np.log((theta @ conditional.T)[np.arange(len(y)), y]).mean()


def nce(source_probs, labels):
    """A loop over the classes of both sides."""
    theta, y = _numpy(source_probs, labels)
    z = theta.argmax(axis=1)
    joint = np.array([[((y == c) & (z == s)).mean() for s in np.unique(z)] for c in np.unique(y)])
    conditional = joint / joint.sum(axis=0)
    return (joint * np.log(np.where(joint > 0, conditional, 1))).sum()


def logme(features, labels):
    """The SVD, then the fixed point of alpha and beta class by class; with the term that the authors' code lacks."""
    f, y = _numpy(features, labels)
    n, classes = len(f), np.unique(y)
    u, s, _ = np.linalg.svd(f, full_matrices=False)
    sigma, scores = s**2, []
    for c in classes:
        target = (y == c).astype(float)
        x2, alpha, beta = (u.T @ target) ** 2, 1.0, 1.0
        outside = max(0.0, target.sum() - x2.sum())
        for _ in range(200):
            t = alpha / beta
            gamma, size = (sigma / (sigma + t)).sum(), (sigma * x2 / (sigma + t) ** 2).sum()
            residual = (x2 / (1 + sigma / t) ** 2).sum() + outside
            alpha, beta = gamma / (size + 1e-12), (n - gamma) / (residual + 1e-12)
            if abs(alpha / beta - t) <= 1e-5 * t:
                break
        log_det = np.log(alpha + beta * sigma).sum() - len(s) * np.log(alpha)
        evidence = n * np.log(beta) - log_det - beta * residual - alpha * size - n * np.log(2 * np.pi)
        scores.append(evidence / (2 * n))
    return np.mean(scores)


def knn(features, labels):
    """All distances at once."""
    import torch

    distances = torch.cdist(features.double(), features.double()).fill_diagonal_(torch.inf)
    return (labels[distances.argmin(dim=1)] == labels).double().mean().item()


def linear(features, labels):
    """Scikit-learn's leave-one-out over the same strengths, on one-hot targets."""
    from sklearn.linear_model import RidgeCV

    f, y = _numpy(features, labels)
    values = np.linalg.svd(f - f.mean(axis=0), compute_uv=False) ** 2
    unit = values[values > 1e-12 * values.max()].mean()
    targets = (y[:, None] == np.unique(y)).astype(float)
    fitted = RidgeCV(_STRENGTHS * unit, scoring="neg_mean_squared_error", store_cv_results=True).fit(f, targets)
    best = int(np.argmin(np.abs(_STRENGTHS * unit - fitted.alpha_)))
    predictions = fitted.cv_results_.reshape(len(y), -1, len(_STRENGTHS))[:, :, best]
    return (predictions.argmax(axis=1) == y).mean()


def h_score(features, labels):
    """Ledoit-Wolf and the pseudo-inverse, with the class means as an n x d matrix."""
    from sklearn.covariance import ledoit_wolf

    f, y = _numpy(features, labels)
    f = f - f.mean(axis=0)
    covariance, shrinkage = ledoit_wolf(f, assume_centered=True)
    means = np.zeros_like(f)
    for c in np.unique(y):
        means[y == c] = f[y == c].mean(axis=0)
    between = means.T @ means / len(f)
    return np.trace(np.linalg.pinv(covariance, rcond=1e-15) @ between) * (1 - shrinkage)


def transrate(features, labels):
    """C + 1 log-determinants of d x d matrices."""
    f, y = _numpy(features, labels)
    z = f - f.mean(axis=0)
    z = z / np.sqrt((z**2).sum(axis=1).mean())

    def rate(rows):
        return np.linalg.slogdet(np.eye(z.shape[1]) + rows.T @ rows / (len(rows) * 1e-4))[1] / 2

    return rate(z) - sum((y == c).mean() * rate(z[y == c]) for c in np.unique(y))


def gbc(features, labels):
    """A full principal component analysis and a loop over pairs of classes."""
    from sklearn.decomposition import PCA

    f, y = _numpy(features, labels)
    points = PCA(min(64, *f.shape), svd_solver="full").fit_transform(f)
    points /= np.sqrt((points**2).mean())
    means = [points[y == c].mean(axis=0) for c in np.unique(y)]
    variances = [np.maximum(points[y == c].var(axis=0), 1e-4).mean() for c in np.unique(y)]
    score = 0.0
    for i, (m, v) in enumerate(zip(means, variances, strict=True)):
        for other, w in zip(means[:i], variances[:i], strict=True):
            middle = (v + w) / 2
            distance = ((m - other) ** 2).sum() / middle / 8 + len(m) / 2 * np.log(middle / np.sqrt(v * w))
            score -= 2 * np.exp(-distance)
    return score


def sfda(features, labels):
    """The paper's form: two discriminant analyses, each with all d generalised eigenvectors."""
    f, y = _numpy(features, labels)
    shrinkage = _shrinkage(f, y)
    own = _posteriors(f, y, shrinkage)[np.arange(len(y)), y]
    means = np.stack([f[y == c].mean(axis=0) for c in np.unique(y)])
    others = (means.sum(axis=0) - means) / (len(means) - 1)
    mixed = own[:, None] * f + (1 - own[:, None]) * others[y]
    return _posteriors(mixed, y, shrinkage)[np.arange(len(y)), y].mean()


def etran(features, source_logits, labels):
    """One such analysis, and the energies."""
    from scipy.special import logsumexp

    f, y = _numpy(features, labels)
    own = _posteriors(f, y, _shrinkage(f, y))[np.arange(len(y)), y]
    energies = np.sort(logsumexp(source_logits.double().numpy(), axis=1))
    return own.mean(), energies[: max(1, int(len(y) * 0.005))].mean()


def ncti(features, labels):
    """A full principal component analysis, a discriminant analysis, and singular values."""
    from scipy.linalg import eigh
    from sklearn.decomposition import PCA

    f, y = _numpy(features, labels)
    z = PCA(min(64, *f.shape), svd_solver="full").fit_transform(f)
    shrinkage = max(np.exp(-z.var(axis=0, ddof=1)[:32].sum()), 1e-10)
    within, between = _scatters(z, y)
    within = (1 - shrinkage) * within + shrinkage * np.trace(within) / len(within) * np.eye(len(within))
    _, vectors = eigh(between, within)
    fisher = z @ vectors[:, ::-1][:, : y.max()]
    posteriors = _gaussian_posteriors(fisher, y)
    variability = sum(_nuclear_norm(posteriors[y == c]) for c in np.unique(y))
    return _nuclear_norm(fisher), posteriors[np.arange(len(y)), y].mean(), np.log(variability)


def parc(features, labels):
    """Ranks of all pairs on both sides."""
    f, y = _numpy(features, labels)
    deviation = f.std(axis=0)
    f = (f - f.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    return _spearman_of_pairs(f, (y[:, None] == np.unique(y)).astype(float))


def rsa(features, reference):
    """Ranks of all pairs on both sides."""
    return _spearman_of_pairs(features.double().numpy(), reference.double().numpy())


def nleep(features, labels):
    """Scikit-learn's PCA and mixture, on the samples as they come."""
    import torch
    from sklearn.decomposition import PCA
    from sklearn.mixture import GaussianMixture

    f, y = _numpy(features, labels)
    points = PCA(0.8, svd_solver="full").fit_transform(f)
    points /= np.sqrt((points**2).mean())
    count = min(5 * len(np.unique(y)), len(y) // 2)
    mixture = GaussianMixture(count, covariance_type="diag", random_state=0).fit(points)
    return leep(torch.from_numpy(mixture.predict_proba(points)), labels)


def pactran(features, labels):
    """L-BFGS on all weights of the head, with the gradient by hand."""
    from scipy.optimize import minimize
    from scipy.special import log_softmax

    f, y = _numpy(features, labels)
    n, d = f.shape
    f = f - f.mean(axis=0)
    inputs, targets = np.column_stack([f / np.sqrt((f**2).mean()), np.ones(n)]), (y[:, None] == np.unique(y))
    k = targets.shape[1]
    penalty = np.append(np.full(d, 1 / n), 0.0)[:, None]

    def loss(flat):
        weights = flat.reshape(d + 1, k)
        log_p = log_softmax(inputs @ weights, axis=1)
        gradient = inputs.T @ (np.exp(log_p) - targets) / n + penalty * weights
        return -log_p[targets].mean() + (penalty * weights**2).sum() / 2, gradient.ravel()

    found = minimize(loss, np.zeros((d + 1) * k), jac=True, method="L-BFGS-B", options={"maxiter": 100})
    p = np.exp(log_softmax(inputs @ found.x.reshape(d + 1, k), axis=1))
    trace = ((inputs**2).sum(axis=1) * (p - p**2).sum(axis=1)).mean()
    return -(found.fun + k * 10 / (2 * n) * np.log1p(n * trace / (k * d)))


def pactran_dirichlet(source_probs, labels):
    """Ten steps on whole n x z matrices."""
    from scipy.special import digamma, gammaln

    s, y = _numpy(source_probs, labels)
    targets = (y[:, None] == np.unique(y)).astype(float)
    prior, q = targets.mean(axis=0)[:, None], s
    for _ in range(10):
        a = prior + targets.T @ q
        joint = s * np.exp(targets @ (digamma(a) - digamma(a.sum(axis=0))))
        q = joint / joint.sum(axis=1, keepdims=True)
    a = prior + targets.T @ q
    gain = gammaln(a).sum() - gammaln(a.sum(axis=0)).sum()
    gain -= s.shape[1] * (gammaln(prior).sum() - gammaln(prior.sum()))
    return (gain - _divergence(q, s)) / len(y)


def pactran_gamma(source_probs, labels):
    """Ten steps on whole n x z matrices."""
    from scipy.special import digamma, gammaln

    s, y = _numpy(source_probs, labels)
    targets = (y[:, None] == np.unique(y)).astype(float)
    prior, q = targets.mean(axis=0)[:, None], s
    for _ in range(10):
        joint = s * np.exp(targets @ digamma(prior + targets.T @ q))
        q = joint / joint.sum(axis=1, keepdims=True)
    a = prior + targets.T @ q
    fit = (q * (targets @ digamma(a))).sum() - _divergence(q, s) - np.log(s @ a.sum(axis=0)).sum()
    return (fit - ((a - prior) * digamma(a) - gammaln(a) + gammaln(prior)).sum()) / len(y)


def otce(features, labels, source_features, source_labels):
    """POT on at most 1,000 samples of each side, drawn at random, and a loop over pairs of classes."""
    import ot
    from scipy.spatial.distance import cdist

    random = np.random.default_rng(0)
    (f, y), (g, z) = _numpy(features, labels), _numpy(source_features, source_labels)
    target, source = random.permutation(len(y))[:1000], random.permutation(len(z))[:1000]
    f, y, g, z = f[target], y[target], g[source], z[source]
    plan = ot.emd([], [], cdist(g, f, "sqeuclidean"), numItermax=10**7)
    joint = np.array([[plan[np.ix_(z == a, y == b)].sum() for b in np.unique(y)] for a in np.unique(z)])
    conditional = joint / joint.sum(axis=1, keepdims=True)
    return (joint * np.log(np.where(joint > 0, conditional, 1))).sum()


def domain_similarity(features, labels, source_means, source_counts):
    """A loop over classes, and POT."""
    import ot
    from scipy.spatial.distance import cdist

    f, y = _numpy(features, labels)
    classes = [c for c in np.unique(y) if (y == c).sum() >= 5]
    means, counts = np.stack([f[y == c].mean(axis=0) for c in classes]), np.array([(y == c).sum() for c in classes])
    masses = source_counts.double().numpy()
    distance = ot.emd2(
        masses / masses.sum(), counts / counts.sum(), cdist(source_means.double().numpy(), means), numItermax=10**7
    )
    return np.exp(-0.01 * distance)


def feature_metrics(statistics):
    """Two means."""
    return tuple(statistics.double().numpy().mean(axis=0))


REFERENCES = {
    "lfc": lfc,
    "lfc_centered": partial(lfc, centered=True),
    "lfc_cosine": partial(lfc, cosine=True),
    "lgc": lfc,
    "leep": leep,
    "nce": nce,
    "logme": logme,
    "knn": knn,
    "linear": linear,
    "h_score": h_score,
    "transrate": transrate,
    "gbc": gbc,
    "sfda": sfda,
    "etran": etran,
    "ncti": ncti,
    "parc": parc,
    "rsa": rsa,
    "nleep": nleep,
    "pactran": pactran,
    "pactran_dirichlet": pactran_dirichlet,
    "pactran_gamma": pactran_gamma,
    "otce": otce,
    "domain_similarity": domain_similarity,
    "feature_metrics": feature_metrics,
}


def _numpy(features, labels):
    return features.double().numpy(), np.unique(labels.numpy(), return_inverse=True)[1]


def _scatters(f, y):
    """Within-class and between-class covariance, both over n."""
    classes = np.unique(y)
    means = np.stack([f[y == c].mean(axis=0) for c in classes])
    residuals, apart = f - means[y], (means - f.mean(axis=0))[y]
    return residuals.T @ residuals / len(f), apart.T @ apart / len(f)


def _shrinkage(f, y):
    return max(np.exp(-5 * np.linalg.eigvalsh(_scatters(f, y)[0])[-1]), 1e-10)


def _posteriors(f, y, shrinkage):
    """P(class | sample), (n, k), of the shrunk discriminant analysis."""
    from scipy.linalg import eigh

    within, between = _scatters(f, y)
    within = (1 - shrinkage) * within + shrinkage * np.trace(within) / len(within) * np.eye(len(within))
    _, vectors = eigh(between, within)
    return _gaussian_posteriors(f @ vectors[:, ::-1][:, : y.max()], y)


def _gaussian_posteriors(points, y):
    """Of classes with unit covariance."""
    from scipy.special import softmax

    means = np.stack([points[y == c].mean(axis=0) for c in np.unique(y)])
    return softmax(points @ means.T - (means**2).sum(axis=1) / 2 + np.log(np.bincount(y) / len(y)), axis=1)


def _spearman_of_pairs(one, two):
    from scipy.stats import rankdata

    pairs = np.triu_indices(len(one), 1)
    a, b = (rankdata(np.round(1 - np.corrcoef(side)[pairs], 12)) for side in (one, two))
    return np.corrcoef(a, b)[0, 1]


def _divergence(q, s):
    """Sum of q ln(q / s), where 0 ln 0 = 0."""
    return (q * np.log(np.where(q > 0, q / np.where(s > 0, s, 1), 1))).sum()


def _nuclear_norm(matrix):
    return np.linalg.svd(matrix, compute_uv=False).sum()
