"""arXiv:1901.09229 with the factors of the authors' code, one position at a time, mean over images."""

import math


def delta_as_written(maps, start_maps, channel_weights=None):
    total = 0
    for layer, (new, old) in enumerate(zip(maps, start_maps, strict=True)):
        n, c, h, w = new.shape
        for i in range(n):
            for j in range(c):
                weight = 1 / c if channel_weights is None else channel_weights[layer][j]
                distance = 0
                for y in range(h):
                    for x in range(w):
                        distance = distance + (new[i, j, y, x] - old[i, j, y, x]) ** 2
                total = total + c * weight * distance / (h * w) / 2 / n
    return total


def channel_weights_as_written(losses_without, loss):
    increases = [one - loss for one in losses_without]
    mean = sum(increases) / len(increases)
    deviation = math.sqrt(sum((one - mean) ** 2 for one in increases) / len(increases))
    powers = [math.exp((one - mean) / deviation / 5) for one in increases]
    return [one / sum(powers) for one in powers]
