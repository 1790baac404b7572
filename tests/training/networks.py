"""Small real networks of every kind the zoo knows."""

from collections import OrderedDict

import timm
import torch
import transformers as hf
from torch import nn

from hf_zoosel.zoo import Network
from hf_zoosel.zoo.modules import _first_tensor
from hf_zoosel.zoo.timm_models import watch

SMALL_VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": 5,
}
SIZES = {"hidden_sizes": [8, 16], "depths": [1, 1], "num_labels": 5}
SWIN = {"embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4, "image_size": 32, "num_labels": 5}

TIMM = {
    "test_resnet": (32, {}),
    "test_vit": (160, {}),
    "test_convnext": (32, {}),
    "test_efficientnet": (32, {}),
    "deit_tiny_distilled_patch16_224": (224, {"depth": 1, "embed_dim": 24, "num_heads": 2}),
    "swin_tiny_patch4_window7_224": (224, {"embed_dim": 8, "num_heads": (1, 2, 4, 8), "depths": (1, 1, 1, 1)}),
    "crossvit_tiny_240": (240, {"depth": ((1, 1, 0),)}),
    "levit_128s": (224, {}),
    "mobilenetv3_small_050": (32, {}),
}
TRANSFORMERS = {
    "resnet": lambda: hf.ResNetForImageClassification(hf.ResNetConfig(**SIZES, embedding_size=8, layer_type="basic")),
    "vit": lambda: hf.ViTForImageClassification(hf.ViTConfig(**SMALL_VIT)),
    "convnext": lambda: hf.ConvNextForImageClassification(hf.ConvNextConfig(**SIZES, num_stages=2)),
    "swin": lambda: hf.SwinForImageClassification(hf.SwinConfig(**SWIN)),
    "deit": lambda: hf.DeiTForImageClassificationWithTeacher(hf.DeiTConfig(**SMALL_VIT)),
}


class Probabilities(nn.Module):
    """Ends in a softmax, behind a 1 x 1 convolution."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, pixels):
        return self.head(self.stem(pixels).relu().mean(dim=(2, 3), keepdim=True)).flatten(1).softmax(dim=1)


def home_made():
    return nn.Sequential(
        OrderedDict(
            stem=nn.Conv2d(3, 8, 3, stride=2),
            norm=nn.BatchNorm2d(8),
            act=nn.ReLU(),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            head=nn.Linear(8, 4),
        )
    )


def shaken(module):
    """Every parameter away from its initial value, so that heads and norms matter."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def network(name):
    """A network by name, and images of its size."""
    size, arguments = TIMM.get(name, (32, {}))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name in TIMM:
            made = watch(shaken(timm.create_model(name, **arguments)))
        else:
            module = {"home-made": home_made, "probabilities": Probabilities, **TRANSFORMERS}[name]()
            made = Network(shaken(module), _first_tensor)
        return made, torch.randn(3, 3, size, size)


NAMES = (*TIMM, *TRANSFORMERS, "home-made", "probabilities")
