"""The main job on data and networks that need no Hub."""

from typing import TYPE_CHECKING

from hf_zoosel.api import rank_models
from hf_zoosel.ranking import Ranking

if TYPE_CHECKING:
    from datasets import Dataset


def handwritten_digits() -> "Dataset":
    """The 1,797 real handwritten digits that scikit-learn ships, 8 x 8 grey images in 10 classes."""
    import numpy as np
    from datasets import ClassLabel, Dataset, Features, Image

    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ImportError("The demo needs scikit-learn. Run `pip install hf-zoosel[demo]`.") from None
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)  # 0..16 to 0..255
    features = Features({"image": Image(), "label": ClassLabel(names=[str(d) for d in range(10)])})
    dataset = Dataset.from_dict({"image": list(images), "label": digits.target.tolist()}, features=features)
    dataset.info.dataset_name = "digits"
    return dataset


def rank_on_digits(*, progress: bool = True) -> Ranking:
    """Rank the embedded ImageNet networks on the digits by every metric."""
    return rank_models(handwritten_digits(), None, "all", progress=progress)
