"""Co-Tuning's and FixMatch's soft cross-entropies and their gradients, one number at a time."""

import math


def softmax_as_written(row):
    powers = [math.exp(value) for value in row]
    return [power / sum(powers) for power in powers]


def co_tuning_as_written(logits, labels, matrix):
    """The loss and its gradient in the logits."""
    n, loss, gradient = len(logits), 0.0, []
    for row, y in zip(logits, labels, strict=True):
        q = softmax_as_written(row)
        loss += -sum(p * math.log(one) for p, one in zip(matrix[y], q, strict=True)) / n
        gradient.append([(sum(matrix[y]) * one - p) / n for p, one in zip(matrix[y], q, strict=True)])
    return loss, gradient


def consistency_as_written(weak, strong, temperature, threshold):
    """The loss and its gradient in the strong logits."""
    n, loss, gradient = len(weak), 0.0, []
    for w, s in zip(weak, strong, strict=True):
        pseudo = softmax_as_written([value / temperature for value in w])
        counts = 1.0 if max(pseudo) >= threshold else 0.0
        q = softmax_as_written(s)
        loss += -counts * sum(p * math.log(one) for p, one in zip(pseudo, q, strict=True)) / n
        gradient.append([counts * (one - p) / n for p, one in zip(pseudo, q, strict=True)])
    return loss, gradient
