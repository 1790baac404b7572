"""Eq. 2-3 of arXiv:1606.09282: cross-entropy with both sides raised to 1/T, one probability at a time."""

import math


def _sharpened(logits, temperature):
    powers = [math.exp(one) for one in logits]
    roots = [(one / sum(powers)) ** (1 / temperature) for one in powers]
    return [one / sum(roots) for one in roots]


def lwf_as_written(kept_logits, start_logits, temperature):
    """The mean cross-entropy over images, and the mean entropy of the start network, which no weight changes."""
    loss = entropy = 0.0
    for kept, start in zip(kept_logits, start_logits, strict=True):
        for p, q in zip(_sharpened(kept, temperature), _sharpened(start, temperature), strict=True):
            loss -= q * math.log(p)
            entropy -= q * math.log(q)
    return loss / len(kept_logits), entropy / len(kept_logits)


def lwf_gradient_as_written(kept_logits, start_logits, temperature):
    rows = []
    for kept, start in zip(kept_logits, start_logits, strict=True):
        p, q = _sharpened(kept, temperature), _sharpened(start, temperature)
        rows.append([(a - b) / temperature / len(kept_logits) for a, b in zip(p, q, strict=True)])
    return rows
