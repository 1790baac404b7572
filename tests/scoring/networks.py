"""A convolutional network small enough to be run many times over."""

import torch
from torch import nn

from tests.test_rank_models import to_tensor


class Convolving(nn.Module):
    """Feature maps with zeros, mean pooling, a linear head."""

    def __init__(self, width=8, n_out=4):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, width, 3, stride=2), nn.Linear(width, n_out)

    def forward(self, pixels):
        return self.head(self.maps(pixels).mean(dim=(2, 3)))

    def maps(self, pixels):
        """What is pooled."""
        return torch.relu_(self.conv(pixels))


class Rectified(Convolving):
    """The same, where the rectifier is a layer that can be watched."""

    def __init__(self, width=8, n_out=4):
        super().__init__(width, n_out)
        self.act = nn.ReLU(inplace=True)

    def maps(self, pixels):
        """What is pooled."""
        return self.act(self.conv(pixels))


def convolving(seed=0, kind=Rectified, **options):
    """A module with seeded weights and its transform."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(**options), to_tensor
