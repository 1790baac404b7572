"""NCE (arXiv:1908.08142): -H(Y | Z) as a double sum over the labels."""

import math


def nce_as_written(source_probs, labels, weights=None):
    """Z is the source class of the largest probability; sample i counts w_i times."""
    theta, y = source_probs.tolist(), labels.tolist()
    z = [row.index(max(row)) for row in theta]
    w = [1.0] * len(y) if weights is None else weights
    score = 0.0
    for b in set(z):
        p_z = sum(w[i] for i in range(len(y)) if z[i] == b) / sum(w)
        for a in set(y):
            p_yz = sum(w[i] for i in range(len(y)) if z[i] == b and y[i] == a) / sum(w)
            score += p_yz * math.log(p_yz / p_z) if p_yz else 0.0
    return score
