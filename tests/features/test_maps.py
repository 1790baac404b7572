import pytest
import torch
from torch import nn

from hf_zoosel.features.maps import MapStatistics
from hf_zoosel.metrics.feature_metrics import map_statistics
from hf_zoosel.zoo import Network, resolve
from tests.features.test_extract import run


def seen_by(statistics, network, pixels):
    with torch.no_grad():
        with statistics.watching(network.module):
            output = network(pixels)
        return statistics.rows(output)


@pytest.mark.parametrize(
    ("architecture", "maps_of"),
    [
        ("test_resnet", lambda m, x: m.forward_features(x)),
        ("test_efficientnet", lambda m, x: m.forward_features(x)),
        ("mobilenetv3_small_050", lambda m, x: m.forward_features(x)),
    ],
)
def test_maps_are_those_before_pooling(architecture, maps_of, network):
    module = network(architecture=architecture).eval()
    pixels = torch.randn(4, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    statistics = MapStatistics()
    rows = torch.cat([seen_by(statistics, Network(module), part) for part in (pixels[:1], pixels[1:])])
    with torch.no_grad():
        torch.testing.assert_close(rows, map_statistics(maps_of(module, pixels)), rtol=1e-3, atol=1e-5)


def test_the_patch_embedding_of_a_transformer_is_no_feature_map(task, network, tmp_path):
    outcome = run([resolve(network(architecture="test_vit"), "vit")], task, tmp_path, parts=["map_statistics"])["vit"]
    assert outcome.absent == {"map_statistics": "it has no feature maps before its pooling"}


def test_an_activation_in_place_is_seen_after_it_has_acted():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    )
    pixels = torch.randn(3, 3, 16, 16)
    statistics = MapStatistics()
    rows = torch.cat([seen_by(statistics, Network(net), part) for part in (pixels[:1], pixels[1:])])
    with torch.no_grad():
        torch.testing.assert_close(rows, map_statistics(net[:2](pixels)))
    assert (rows[:, 0] < 0.9).all()
