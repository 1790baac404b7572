import pickle
import random

import numpy as np
import pytest
import torch
from PIL import Image

from hf_zoosel.training.augment import Augmentation, make_views
from hf_zoosel.training.geometry import find_geometry
from hf_zoosel.training.randomness import borrowed_generators
from hf_zoosel.zoo import CandidateError
from hf_zoosel.zoo.preprocess import from_callable, from_image_processor, from_timm
from tests.training.pictures import picture, small_preprocess

PHOTO = picture(0, (60, 44)).resize((120, 88), Image.Resampling.BILINEAR)


def seeded(view, image=PHOTO, seed=0):
    with borrowed_generators() as seed_all:
        seed_all(seed)
        return np.array(view(image))


@pytest.mark.parametrize(
    "config",
    [
        {"input_size": (3, 224, 224), "crop_pct": 0.875, "interpolation": "bicubic"},
        {"input_size": (3, 240, 240), "crop_pct": 0.882, "interpolation": "bilinear"},
        {"input_size": (3, 160, 224), "crop_pct": 0.9, "interpolation": "bicubic"},
        {"input_size": (3, 96, 96), "crop_pct": 1.0, "interpolation": "bicubic", "crop_mode": "squash"},
        {"input_size": (3, 64, 64), "crop_pct": 0.95, "interpolation": "bilinear", "crop_mode": "border"},
        {"input_size": (1, 28, 28), "crop_pct": 0.875, "interpolation": "nearest", "mean": (0.5,), "std": (0.5,)},
    ],
    ids=lambda config: f"{config['input_size']} {config.get('crop_mode', 'center')}",
)
def test_the_way_a_checkpoint_cuts_images_is_found_by_looking(config):
    preprocess = from_timm(config)
    found = find_geometry(preprocess)
    assert found.is_faithful
    assert (found.size, found.interpolation) == (config["input_size"][1:], config["interpolation"])
    assert found.crop_mode == config.get("crop_mode", "center")
    assert found.crop_pct == pytest.approx(config["crop_pct"], abs=0.005)
    assert np.array_equal(found.to_pixels(found.to_image(preprocess.mean)(PHOTO)), preprocess.pixels(PHOTO))


def test_a_transformers_processor_is_recognised_too():
    from transformers import ViTImageProcessor

    found = find_geometry(from_image_processor(ViTImageProcessor(size={"height": 48, "width": 48})))
    assert (found.size, found.crop_mode, found.crop_pct, found.interpolation) == ((48, 48), "squash", 1.0, "bilinear")
    assert found.is_faithful


def test_the_order_of_channels_is_kept_in_training():
    from transformers import MobileViTImageProcessor

    processor = MobileViTImageProcessor(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32})
    views = make_views(from_image_processor(processor))
    red = Image.new("RGB", (60, 60), (250, 10, 20))
    assert seeded(views.train, red)[16, 16].tolist() == views.evaluation(red)[16, 16].tolist() == [20, 10, 250]


def test_evaluation_is_the_candidates_own_preprocessing():
    preprocess = small_preprocess(32)
    assert make_views(preprocess).evaluation is preprocess.pixels


@pytest.mark.parametrize("policy", ["rand-m0-n9", "rand-m10-n9", "rand-m10-n9-inc1", "augmix-m10", "original"])
def test_policies_of_timm_run_at_the_ends_of_their_range(policy):
    views = make_views(small_preprocess(8), Augmentation(auto_augment=policy))
    for seed in range(60):  # posterize to no bit at all is among them
        seeded(views.train, seed=seed)


def test_without_augmentation_training_sees_what_evaluation_sees():
    views = make_views(small_preprocess(32), Augmentation(kind="none", erase=1.0))
    assert views.train is views.evaluation


@pytest.mark.parametrize(
    "options",
    [
        Augmentation(),
        Augmentation(vflip=0.5, color_jitter=0.4, erase=0.5),
        Augmentation(auto_augment="rand-m9-mstd0.5"),
        Augmentation(auto_augment="augmix-m3-w3"),
        Augmentation(auto_augment="original"),
    ],
    ids=str,
)
def test_a_view_is_a_function_of_its_seed_and_survives_pickle(options):
    views = make_views(small_preprocess(32), options)
    for view in (views.train, views.strong):
        made = [seeded(view, seed=seed) for seed in range(6)]
        assert all(pixels.shape == (32, 32, 3) and pixels.dtype == np.uint8 for pixels in made)
        assert len({pixels.tobytes() for pixels in made}) > 1
        again = pickle.loads(pickle.dumps(view))
        assert all(np.array_equal(seeded(again, seed=seed), pixels) for seed, pixels in enumerate(made))


def test_global_random_state_is_given_back():
    views = make_views(small_preprocess(32), Augmentation(auto_augment="rand-m9-mstd0.5", erase=1.0))
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    seeded(views.train, seed=5)
    with pytest.raises(TypeError, match="Unexpected type"):
        seeded(views.train, "no image", seed=6)
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


def test_erasing_fills_with_the_mean_colour():
    preprocess = small_preprocess(32, mean=(1.0, 0.0, 0.2))
    image = Image.new("RGB", (40, 40), (9, 99, 199))
    colours = {tuple(c) for c in seeded(make_views(preprocess, Augmentation(erase=1.0)).train, image).reshape(-1, 3)}
    assert colours == {(9, 99, 199), (255, 0, 51)}


def test_grey_networks_get_one_channel():
    views = make_views(small_preprocess(28, input_size=(1, 28, 28)), Augmentation(auto_augment="rand-m9"))
    assert seeded(views.train).shape == seeded(views.strong).shape == (28, 28, 1)


def bright(image):
    return torch.from_numpy(np.asarray(image.resize((20, 16))).transpose(2, 0, 1) / 255.0)


def test_a_preprocessing_that_cannot_be_split_is_applied_to_the_augmented_image():
    views = make_views(from_callable(bright), Augmentation(scale=(0.2, 0.5)))
    made = seeded(views.train)
    assert (made.shape, made.dtype) == ((3, 16, 20), np.float32)
    assert not np.array_equal(made, views.evaluation(PHOTO))


def test_a_preprocessing_that_gives_many_sizes_or_fails_is_refused():
    with pytest.raises(CandidateError, match="one size, got"):
        make_views(from_callable(lambda image: torch.zeros(3, image.height, image.width)))
    with pytest.raises(CandidateError, match="its preprocessing failed: ValueError"):
        make_views(from_callable(lambda image: "nothing"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "all"}, "`kind` must be"),
        ({"scale": (0.0, 1.0)}, "`scale` must be two numbers"),
        ({"scale": (0.5, 1.5)}, "`scale` must be two numbers"),
        ({"ratio": (2.0, 1.0)}, "`ratio` must be two numbers"),
        ({"hflip": 1.2}, "`hflip` must be a probability"),
        ({"color_jitter": -1}, "`color_jitter` must be"),
        ({"auto_augment": "random"}, "`auto_augment` must be a policy of timm"),
        ({"auto_augment": "rand-x9"}, "`auto_augment` must be a policy of timm"),
    ],
)
def test_options_out_of_range_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        Augmentation(**options)
