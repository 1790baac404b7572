"""Choose which model to fine-tune, and what to fine-tune it with.

Public names load on first use, so that importing the package costs nothing: neither torch nor any
Hugging Face library is imported before one of them is needed.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_zoosel.api import (
        contact_sheet as contact_sheet,
        finetune as finetune,
        rank_models as rank_models,
        relate_classes as relate_classes,
        select_source as select_source,
    )
    from hf_zoosel.metrics import METRICS as METRICS, Metric as Metric
    from hf_zoosel.ranking import Ranking as Ranking
    from hf_zoosel.selection import SourceSelection as SourceSelection
    from hf_zoosel.training import FinetuneResult as FinetuneResult, Recipe as Recipe
    from hf_zoosel.zoo import embedded_models as embedded_models

__version__ = version("hf-zoosel")

_WHERE = {
    "FinetuneResult": "hf_zoosel.training",
    "METRICS": "hf_zoosel.metrics",
    "Metric": "hf_zoosel.metrics",
    "Ranking": "hf_zoosel.ranking",
    "Recipe": "hf_zoosel.training",
    "SourceSelection": "hf_zoosel.selection",
    "contact_sheet": "hf_zoosel.api",
    "embedded_models": "hf_zoosel.zoo",
    "finetune": "hf_zoosel.api",
    "rank_models": "hf_zoosel.api",
    "relate_classes": "hf_zoosel.api",
    "select_source": "hf_zoosel.api",
}

__all__ = [
    "FinetuneResult",
    "METRICS",
    "Metric",
    "Ranking",
    "Recipe",
    "SourceSelection",
    "contact_sheet",
    "embedded_models",
    "finetune",
    "rank_models",
    "relate_classes",
    "select_source",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'hf_zoosel' has no attribute {name!r}. It has {', '.join(__all__)}.")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
