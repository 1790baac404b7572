"""The two branches of Kou et al., NeurIPS 2020, channel by channel; statistics are in float64 on plain tensors."""

import torch


def stoch_norm_as_written(x, layer, from_moving):
    """Output, and the moving mean and variance afterwards; ``from_moving`` says which channels take that branch."""
    n = x.numel() // x.shape[1]
    channels, means, variances = [], [], []
    for c in range(x.shape[1]):
        values = x[:, c]
        mean = values.sum() / n
        variance = ((values - mean) ** 2).sum() / n
        if from_moving[c]:
            hat = (values - layer.running_mean[c]) / torch.sqrt(layer.running_var[c] + layer.eps)
        else:
            hat = (values - mean) / torch.sqrt(variance + layer.eps)
        channels.append(layer.weight[c] * hat + layer.bias[c])
        a = layer.momentum
        means.append((1 - a) * layer.running_mean[c] + a * mean.detach())
        variances.append((1 - a) * layer.running_var[c] + a * variance.detach() * n / (n - 1))
    return torch.stack(channels, dim=1), torch.stack(means), torch.stack(variances)
