import logging

import numpy as np
import pytest
import torch
import transformers as hf
from huggingface_hub.utils import are_progress_bars_disabled
from transformers.utils import logging as hf_logging

from hf_zoosel.zoo import resolve
from tests.zoo.conftest import VIT

TINY = {key: value for key, value in VIT.items() if key != "num_labels"}
RESNET = hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=5)
CONVNEXT = hf.ConvNextConfig(hidden_sizes=[8, 8, 16, 32], depths=[1, 1, 1, 1], num_labels=5)
SWIN = hf.SwinConfig(
    image_size=32, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4, num_labels=5
)
DINO = hf.Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8)
MAE = hf.ViTMAEConfig(
    **TINY,
    decoder_hidden_size=32,
    decoder_num_hidden_layers=1,
    decoder_num_attention_heads=2,
    decoder_intermediate_size=32,
)
FEATURES = {  # the classifier's input, written out for each family
    "vit": (lambda: hf.ViTForImageClassification(hf.ViTConfig(**VIT)), lambda m, x: m.vit(x).last_hidden_state[:, 0]),
    "resnet": (
        lambda: hf.ResNetForImageClassification(RESNET),
        lambda m, x: m.resnet(x).pooler_output.flatten(1),
    ),
    "convnext": (lambda: hf.ConvNextForImageClassification(CONVNEXT), lambda m, x: m.convnext(x).pooler_output),
    "swin": (lambda: hf.SwinForImageClassification(SWIN), lambda m, x: m.swin(x).pooler_output),
    "deit": (
        lambda: hf.DeiTForImageClassification(hf.DeiTConfig(**VIT)),
        lambda m, x: m.deit(x).last_hidden_state[:, 0],
    ),
    "deit with teacher": (
        lambda: hf.DeiTForImageClassificationWithTeacher(hf.DeiTConfig(**VIT)),
        lambda m, x: m.deit(x).last_hidden_state[:, :2].mean(dim=1),
    ),
}


@pytest.mark.parametrize("family", FEATURES)
def test_features_are_the_input_of_the_classifier(family, save_transformers, run):
    make, by_hand = FEATURES[family]
    model = make().eval()
    candidate, batch, output = run(save_transformers(model))
    with torch.inference_mode():
        torch.testing.assert_close(output.features, by_hand(model, batch), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(output.logits, model(batch).logits, atol=1e-5, rtol=1e-4)
    assert "has no preprocessor_config.json" in candidate.notes[0]


def cls_and_mean(model, pixels):
    tokens = model(pixels).last_hidden_state
    return torch.cat([tokens[:, 0], tokens[:, 1:].mean(dim=1)], dim=1)


HEADLESS = {
    "vit": (lambda: hf.ViTModel(hf.ViTConfig(**TINY)), lambda m, x: m(x).last_hidden_state[:, 0]),
    "resnet": (lambda: hf.ResNetModel(RESNET), lambda m, x: m(x).pooler_output.flatten(1)),
    "dinov2": (lambda: hf.Dinov2Model(DINO), cls_and_mean),
    "dinov3": (
        lambda: hf.DINOv3ViTModel(hf.DINOv3ViTConfig(**TINY)),
        lambda m, x: m(x).pooler_output,
    ),
}


@pytest.mark.parametrize("family", HEADLESS)
def test_a_checkpoint_without_head_gives_what_fine_tuning_starts_from_and_no_logits(family, save_transformers, run):
    make, by_hand = HEADLESS[family]
    model = make().eval()
    _, batch, output = run(save_transformers(model))
    assert output.logits is None
    with torch.inference_mode():
        torch.testing.assert_close(output.features, by_hand(model, batch), atol=1e-5, rtol=1e-4)


def test_a_backbone_loads_like_its_model(save_transformers, run):
    _, _, output = run(save_transformers(hf.Dinov2Backbone(DINO)))
    assert output.features.shape == (1, 64)
    assert output.logits is None


def test_a_masked_auto_encoder_sees_the_whole_image_and_draws_nothing_at_random(save_transformers, run):
    folder = save_transformers(hf.ViTMAEForPreTraining(MAE))
    _, _, first = run(folder)
    candidate, batch, _ = run(folder)
    network = candidate.load()
    state = torch.get_rng_state()
    with torch.inference_mode():
        again = network(batch)
        tokens = network.module(batch, noise=torch.arange(16.0)[None]).last_hidden_state
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(again.features, first.features)
    assert tokens.shape == (1, 17, 32)  # every patch and the class token


@pytest.mark.parametrize("headless", [False, True])
def test_a_timm_network_saved_by_transformers_loads(headless, save_transformers, run):
    config = hf.TimmWrapperConfig(architecture="test_resnet", num_labels=6)
    model = (hf.TimmWrapperModel if headless else hf.TimmWrapperForImageClassification)(config).eval()
    _, batch, output = run(save_transformers(model))
    with torch.inference_mode():
        if headless:
            assert output.logits is None
            torch.testing.assert_close(output.features, model(batch).pooler_output, atol=1e-5, rtol=1e-4)
        else:
            torch.testing.assert_close(output.logits, model(batch).logits, atol=1e-5, rtol=1e-4)


def test_shards_load(vit, vit_processor, save_transformers, run):
    folder = save_transformers(vit, vit_processor, max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    candidate, batch, output = run(folder)
    with torch.inference_mode():
        torch.testing.assert_close(output.logits, vit(batch).logits, atol=1e-5, rtol=1e-4)
    assert candidate.notes == ()


PROCESSORS = {
    "resized": hf.ViTImageProcessor(size={"height": 48, "width": 32}),
    "own constants": hf.ViTImageProcessor(image_mean=[0.1, 0.2, 0.3], image_std=[0.3, 0.2, 0.1]),
    "not normalised": hf.ViTImageProcessor(do_normalize=False),
    "cropped": hf.CLIPImageProcessor(size={"shortest_edge": 50}, crop_size={"height": 40, "width": 40}),
    "cropped by a share": hf.ConvNextImageProcessor(size={"shortest_edge": 64}),
    "bilinear": hf.BitImageProcessor(resample=2),
    "rescaled otherwise": hf.ViTImageProcessor(rescale_factor=1 / 127.5),
    "not rescaled": hf.ViTImageProcessor(do_rescale=False),
    "offset": hf.EfficientNetImageProcessor(rescale_offset=True),
    "resized after scaling": hf.DINOv3ViTImageProcessor(),
}


@pytest.mark.parametrize("kind", PROCESSORS)
def test_preprocessing_is_the_image_processors_own(kind, vit, save_transformers, image):
    processor = PROCESSORS[kind]
    preprocess = resolve(save_transformers(vit, processor), "it").preprocess
    batch = preprocess.batch(torch.from_numpy(preprocess.pixels(image))[None])
    expected = processor(images=image, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(batch, expected.float(), atol=1e-5, rtol=1e-5)


def test_only_steps_that_cannot_be_split_are_kept_whole(vit, save_transformers, image):
    def kind(name):
        return resolve(save_transformers(vit, PROCESSORS[name], name), "it").preprocess.pixels(image).dtype

    assert kind("resized") == kind("cropped") == np.uint8
    assert kind("rescaled otherwise") == kind("resized after scaling") == np.float32


def test_a_default_processor_takes_the_networks_image_size_in_its_own_proportion(save_transformers, image):
    preprocess = resolve(save_transformers(hf.DeiTForImageClassification(hf.DeiTConfig(**VIT))), "it").preprocess
    processor = hf.DeiTImageProcessor(
        size={"height": 37, "width": 37}, crop_size={"height": 32, "width": 32}
    )  # 256 : 224
    batch = preprocess.batch(torch.from_numpy(preprocess.pixels(image))[None])
    torch.testing.assert_close(batch, processor(images=image, return_tensors="pt")["pixel_values"], atol=1e-5, rtol=0)


def test_loading_is_silent_and_gives_the_callers_log_settings_back(vit_without_head, save_transformers, capfd):
    folder = save_transformers(vit_without_head)
    capfd.readouterr()
    before = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled(), are_progress_bars_disabled()
    hf_logging.set_verbosity(logging.INFO)
    try:
        resolve(folder, "it").load()
        assert hf_logging.get_verbosity() == logging.INFO
    finally:
        hf_logging.set_verbosity(before[0])
    assert (hf_logging.is_progress_bar_enabled(), are_progress_bars_disabled()) == before[1:]
    assert capfd.readouterr() == ("", "")
