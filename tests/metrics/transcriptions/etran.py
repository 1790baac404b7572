"""ETran (arXiv:2308.02027) by the book."""

import numpy as np

from tests.metrics.transcriptions.sfda import own_posteriors_as_written, shrinkage_as_written


def etran_terms_as_written(features, source_logits, labels, lowest=0.005, held_out=True):
    x, logits, y = features.double().numpy(), source_logits.double().numpy(), labels.numpy()
    energies = sorted(np.log(sum(np.exp(value - max(row)) for value in row)) + max(row) for row in logits)
    count = max(1, int(1000 * lowest) * len(y) // 1000)
    shrinkage = shrinkage_as_written(x, y)
    return own_posteriors_as_written(x, y, shrinkage, held_out).mean(), np.mean(energies[:count])


def etran_over_zoo_as_written(terms):
    scores = []
    for separable, energy in terms:
        score = 0.0
        for weight, value, column in ((0.85, separable, 0), (0.15, energy, 1)):
            values = [row[column] for row in terms]
            score += weight * (value - min(values)) / (max(values) - min(values))
        scores.append(score)
    return scores
