"""Eqs. 1-2 of LEEP (arXiv:2002.12462), written as the sums they are."""

import math


def leep_as_written(source_probs, labels, weights=None):
    """Sample i counts w_i times. A source class without any mass is divided by zero, as in the formula."""
    theta, y = source_probs.tolist(), labels.tolist()
    n, n_source = len(theta), len(theta[0])
    w = [1.0] * n if weights is None else weights

    def joint(c, z):
        return sum(w[i] * theta[i][z] for i in range(n) if y[i] == c) / sum(w)

    def conditional(c, z):
        return joint(c, z) / sum(joint(other, z) for other in set(y))

    logs = [math.log(sum(conditional(y[i], z) * theta[i][z] for z in range(n_source))) for i in range(n)]
    return sum(w[i] * logs[i] for i in range(n)) / sum(w)
