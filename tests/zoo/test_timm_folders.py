import json

import pytest
import timm
import torch
from timm.data import create_transform, resolve_data_config

from hf_zoosel.zoo import CandidateError, resolve

FAMILIES = {
    "test_resnet": {},
    "test_vit": {},
    "test_convnext": {},
    "test_efficientnet": {},
    "deit_tiny_distilled_patch16_224": {"depth": 2, "embed_dim": 32, "num_heads": 2},
    "swin_tiny_patch4_window7_224": {"embed_dim": 16, "num_heads": (1, 2, 4, 8), "depths": (1, 1, 1, 1)},
    "crossvit_tiny_240": {},
    "efficientvim_m1": {},
}


def checkpoint(architecture, **arguments):
    """A model whose every tensor is away from its initial value, so that heads and poolers matter."""
    torch.manual_seed(0)
    model = timm.create_model(architecture, **arguments).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("architecture", FAMILIES)
def test_features_are_what_timm_gives_before_the_classifier(architecture, save_timm, run):
    model = checkpoint(architecture, num_classes=7, **FAMILIES[architecture])
    candidate, batch, output = run(save_timm(model) if architecture.startswith("test_") else model)
    with torch.inference_mode():
        features = model.forward_head(model.forward_features(batch), pre_logits=True)
        torch.testing.assert_close(output.features, features, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(output.logits, model(batch), atol=1e-5, rtol=1e-4)
    assert candidate.revision.startswith("sha256:")


@pytest.mark.parametrize("architecture", ["test_resnet", "test_vit"])
def test_a_network_without_head_gives_features_and_no_logits(architecture, save_timm, run):
    model = checkpoint(architecture, num_classes=0)
    _, batch, output = run(save_timm(model))
    assert output.logits is None
    with torch.inference_mode():
        torch.testing.assert_close(output.features, model(batch), atol=1e-5, rtol=1e-4)


def test_maps_of_a_network_without_pooling_are_averaged_over_space_also_with_channels_last(run):
    options = FAMILIES["swin_tiny_patch4_window7_224"]
    model = checkpoint("swin_tiny_patch4_window7_224", num_classes=0, global_pool="", **options)
    _, batch, output = run(model)
    with torch.inference_mode():
        torch.testing.assert_close(output.features, model(batch).mean(dim=(1, 2)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"interpolation": "bicubic", "crop_pct": 0.9},
        {"interpolation": "bilinear", "crop_pct": 1.0, "mean": (0.1, 0.2, 0.3), "std": (0.3, 0.2, 0.1)},
        {"interpolation": "nearest", "crop_pct": 0.5},
        {"crop_mode": "squash", "crop_pct": 0.9},
        {"crop_mode": "border", "crop_pct": 0.9},
        {"input_size": (3, 96, 160)},
        {"input_size": (3, 160, 96), "crop_mode": "squash"},
    ],
    ids=str,
)
def test_preprocessing_is_timms_own(changes, save_timm, run, image):
    model = checkpoint("test_resnet")
    model.pretrained_cfg = model.pretrained_cfg | changes
    folder = save_timm(model)
    saved = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
    expected = create_transform(**resolve_data_config({}, pretrained_cfg=saved))(image)
    for spec in (folder, model):
        _, batch, _ = run(spec)
        torch.testing.assert_close(batch[0], expected, atol=2e-6, rtol=0)


def test_a_grey_network_sees_grey_images(save_timm, run, image):
    model = checkpoint("test_resnet", in_chans=1)
    _, from_memory, output = run(model)
    _, from_folder, _ = run(save_timm(model))
    mean = sum(model.pretrained_cfg["mean"]) / 3
    std = sum(model.pretrained_cfg["std"]) / 3
    config = resolve_data_config({}, pretrained_cfg=model.pretrained_cfg) | {"mean": (mean,), "std": (std,)}
    torch.testing.assert_close(from_memory[0], create_transform(**config)(image.convert("L")), atol=2e-6, rtol=0)
    torch.testing.assert_close(from_folder, from_memory)
    assert output.logits.shape == (1, 1000)


def test_a_network_of_five_channels_is_refused_with_the_remedy():
    with pytest.raises(CandidateError, match=r"5 channels .*\(module, transform\)"):
        resolve(timm.create_model("test_resnet", in_chans=5), "it")


def test_a_network_built_for_a_fixed_size_gets_images_of_that_size(run):
    _, batch, _ = run(timm.create_model("vit_tiny_patch16_224", img_size=64, depth=1, embed_dim=24, num_heads=2))
    assert batch.shape == (1, 3, 64, 64)


def test_candidates_that_differ_in_normalisation_only_share_the_resized_pixels():
    a, b = timm.create_model("test_resnet"), timm.create_model("test_resnet")
    b.pretrained_cfg = b.pretrained_cfg | {"mean": (0.1, 0.2, 0.3)}
    a, b = resolve(a, "a").preprocess, resolve(b, "b").preprocess
    assert a.key == b.key
    assert a.identity != b.identity


def test_candidates_that_fill_a_margin_with_their_mean_do_not_share_pixels():
    a, b = timm.create_model("test_resnet"), timm.create_model("test_resnet")
    a.pretrained_cfg = a.pretrained_cfg | {"crop_mode": "border"}
    b.pretrained_cfg = b.pretrained_cfg | {"crop_mode": "border", "mean": (0.1, 0.2, 0.3)}
    assert resolve(a, "a").preprocess.key != resolve(b, "b").preprocess.key


def test_a_folder_with_unusual_characters_loads(save_timm, run):
    _, _, output = run(str(save_timm(timm.create_model("test_resnet", num_classes=3), "a b#c?d@e:f")))
    assert output.logits.shape == (1, 3)


def test_shards_that_timm_does_not_know_are_refused_whatever_lies_beside_them(save_timm):
    folder = save_timm(checkpoint("test_resnet", num_classes=3))
    index = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    torch.save(checkpoint("test_resnet", num_classes=3).state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(CandidateError, match=r"in shards \(model.safetensors.index.json\), which timm does not load"):
        resolve(folder, "sharded").load()


def test_a_configuration_that_names_another_file_of_weights_is_refused(save_timm):
    folder = save_timm(checkpoint("test_resnet", num_classes=3))
    config = json.loads((folder / "config.json").read_text())
    config["model_args"] = {"checkpoint_path": "elsewhere.bin"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CandidateError, match="changes how weights are loaded"):
        resolve(folder, "loose")
