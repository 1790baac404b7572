"""Fine-tuning: target and source through one network, the losses of a recipe, and what comes out of it."""

from hf_zoosel.training.augment import Augmentation as Augmentation
from hf_zoosel.training.book import DivergedError as DivergedError
from hf_zoosel.training.reading import LoadingError as LoadingError
from hf_zoosel.training.recipe import Recipe as Recipe
from hf_zoosel.training.result import FinetuneResult as FinetuneResult
