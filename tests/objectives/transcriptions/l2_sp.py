"""Eq. 2 of arXiv:1802.01483 without its second term, one weight at a time."""


def l2_sp_as_written(weights, start):
    total = 0
    for name in weights:
        for w, w0 in zip(weights[name].flatten(), start[name].flatten(), strict=True):
            total = total + (w - w0) ** 2
    return total / 2
