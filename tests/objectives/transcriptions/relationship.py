"""Co-Tuning's category relationship with every sum written out; the regression by dense Newton steps."""

import math

import torch


def direct_as_written(probs, labels):
    """The mean prediction over the images of each class."""
    rows = []
    for t in range(max(labels) + 1):
        mine = [p for p, y in zip(probs, labels, strict=True) if y == t]
        rows.append([sum(p[s] for p in mine) / len(mine) for s in range(len(probs[0]))])
    return rows


def softmax_as_written(row):
    top = max(row)
    powers = [math.exp(value - top) for value in row]
    return [power / sum(powers) for power in powers]


def regression_as_written(probs, labels, strength, k):
    """Least of C sum_i CE_i + |W|^2 / 2 over W (k, n_source), no intercept: scikit-learn's multinomial problem."""
    x, y = torch.tensor(probs, dtype=torch.float64), torch.tensor(labels)
    size = (k, x.shape[1])

    def objective(flat):
        cross_entropy = torch.nn.functional.cross_entropy(x @ flat.view(size).T, y, reduction="sum")
        return strength * cross_entropy + flat.square().sum() / 2

    flat = torch.zeros(size[0] * size[1], dtype=torch.float64)
    for _ in range(60):
        gradient = torch.autograd.functional.jacobian(objective, flat)
        step = torch.linalg.solve(torch.autograd.functional.hessian(objective, flat), gradient)
        length = 1.0
        while objective(flat - length * step) > objective(flat) and length > 1e-9:
            length /= 2
        flat = flat - length * step
        if step.abs().max() < 1e-11:
            break
    return flat.view(size).tolist()


def logits_as_written(probs, weights):
    return [[sum(w * p for w, p in zip(row, prob, strict=True)) for row in weights] for prob in probs]


def calibrate_as_written(logits, labels):
    """The scale of least negative log-likelihood, by thirds of an interval of its logarithm."""

    def loss(log_scale):
        scale = math.exp(log_scale)
        scaled = [[scale * value for value in row] for row in logits]
        return -sum(math.log(softmax_as_written(row)[y]) for row, y in zip(scaled, labels, strict=True))

    low, high = math.log(1e-2), math.log(1e2)
    for _ in range(150):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, right) if loss(left) < loss(right) else (left, high)
    return math.exp((low + high) / 2)


def reverse_as_written(train, labels, validation, validation_labels, strengths):
    """The matrix, the strength, the scale and the accuracy, in the order of the authors' code."""
    k = max(labels) + 1
    accuracies, classifiers = [], []
    for strength in strengths:
        weights = regression_as_written(train, labels, strength, k)
        answers = [row.index(max(row)) for row in logits_as_written(validation, weights)]
        right = sum(a == y for a, y in zip(answers, validation_labels, strict=True))
        accuracies.append(right / len(validation_labels))
        classifiers.append(weights)
    best = accuracies.index(max(accuracies))
    weights = classifiers[best]
    scale = calibrate_as_written(logits_as_written(validation, weights), validation_labels)
    n_source, everything = len(train[0]), train + validation
    given_source = [softmax_as_written([scale * weights[t][s] for t in range(k)]) for s in range(n_source)]
    marginal = [sum(p[s] for p in everything) / len(everything) for s in range(n_source)]
    joint = [[given_source[s][t] * marginal[s] for s in range(n_source)] for t in range(k)]
    matrix = [[value / sum(row) for value in row] for row in joint]
    return matrix, strengths[best], scale, accuracies[best]
