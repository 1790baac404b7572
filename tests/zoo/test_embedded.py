import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from hf_zoosel.zoo import CandidateError, embedded_models, resolve

SHARED = Path(__file__).parents[3] / "shared"
PALACE = 698


@pytest.mark.parametrize("name", embedded_models())
def test_every_embedded_network_sees_a_palace(name):
    candidate = resolve(name, name)
    pixels = candidate.preprocess.pixels(Image.fromarray(load_sample_image("china.jpg")))
    with torch.inference_mode():
        output = candidate.load()(candidate.preprocess.batch(torch.from_numpy(pixels)[None]))
    assert output.features.shape == (1, 1280)
    assert output.logits.shape == (1, 1000)
    assert output.logits.argmax().item() == PALACE


def test_the_classes_stand_in_synset_order():
    """Images of 72 pixels are hard, but a mapping that is wrong anywhere would leave next to nothing."""
    import datasets

    path = SHARED / "data" / "imagenet20" / "test.parquet"
    if not path.is_file() or not embedded_models():
        pytest.skip("imagenet20 or the embedded zoo is not at hand")
    split = datasets.Dataset.from_parquet(str(path))
    split = split.select(np.random.default_rng(0).permutation(len(split))[:200])
    classes = _imagenet_numbers(split.features["label"].names)
    labels = torch.tensor(split["label"])
    candidate = resolve(embedded_models()[0], "it")
    network = candidate.load()
    pixels = np.stack([candidate.preprocess.pixels(image.convert("RGB")) for image in split["image"]])
    with torch.inference_mode():
        parts = [network(candidate.preprocess.batch(part)).logits for part in torch.from_numpy(pixels).split(8)]
    logits = torch.cat(parts)
    among_1000 = (logits.argmax(dim=1) == classes[labels]).float().mean()
    among_20 = (logits[:, classes].argmax(dim=1) == labels).float().mean()
    assert among_1000 > 0.35  # measured .435; chance .001
    assert among_20 > 0.7  # measured .790; chance .05


def _imagenet_numbers(names):
    """Class numbers in sorted synset order of classes known by synset or by name."""
    known = json.loads((SHARED / "reference" / "golden" / "imagenet_classes.json").read_text())
    first_names = [name.split(",")[0].lower() for name in known["names"]]
    return torch.tensor([first_names.index(name.split(",")[0].replace("_", " ").lower()) for name in names])


def test_a_name_that_is_not_in_the_zoo_lists_those_that_are():
    with pytest.raises(CandidateError, match=r"no embedded network 'embedded:nope'.*embedded:tf_efficientnet_lite0"):
        resolve("embedded:nope", "it")
