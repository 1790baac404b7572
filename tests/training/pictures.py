"""Small labelled data sets, each image different, some of them broken."""

import io

import datasets
import numpy as np
from PIL import Image

from hf_zoosel.zoo.preprocess import from_timm


def picture(number, size=(14, 12)):
    noise = np.random.default_rng(number).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(noise)


def png(number, size=(14, 12)):
    buffer = io.BytesIO()
    picture(number, size).save(buffer, "PNG")
    return buffer.getvalue()


def pictures(labels, *, names=None, broken=(), offset=0):
    """A Dataset with these labels; ``broken`` rows hold bytes that are no image."""
    content = [b"no image" if row in broken else png(offset + row) for row in range(len(labels))]
    columns = {"image": [{"bytes": one, "path": None} for one in content]}
    if labels[0] is not None:
        columns["label"] = list(labels)
    made = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
    return made if names is None else made.cast_column("label", datasets.ClassLabel(names=list(names)))


def small_preprocess(size=8, **more):
    return from_timm({"input_size": (3, size, size), "crop_pct": 0.875, "interpolation": "bilinear"} | more)
