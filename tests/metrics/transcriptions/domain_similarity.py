"""Domain similarity (arXiv:1806.06193): exp(-gamma EMD) between weighted class means."""

import numpy as np

from tests.metrics.transcriptions.transport import plan_as_written


def domain_similarity_as_written(
    features, labels, source_means, source_counts, gamma=0.01, least=5, least_source=200, weights=None
):
    """Sample i counts w_i times in the mean of its class."""
    f, y, w = features.double().numpy(), labels.numpy(), np.ones(len(labels)) if weights is None else weights
    n_of = {c: (y == c).sum() for c in np.unique(y)}
    classes = [c for c in n_of if n_of[c] >= least] or list(n_of)
    targets = np.array([np.average(f[y == c], axis=0, weights=w[y == c]) for c in classes])
    target_mass = np.array([n_of[c] for c in classes], dtype=float)
    counts = source_counts.double().numpy()
    kept = [j for j in range(len(counts)) if counts[j] >= least_source] or list(range(len(counts)))
    sources, source_mass = source_means.double().numpy()[kept], counts[kept]

    distance = np.array([[np.linalg.norm(s - t) for t in targets] for s in sources])
    flow = plan_as_written(distance, source_mass / source_mass.sum(), target_mass / target_mass.sum())
    return np.exp(-gamma * (flow * distance).sum() / flow.sum())
