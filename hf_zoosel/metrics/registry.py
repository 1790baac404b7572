"""The table of metrics. To add one: write its file, then add one line here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Literal

from torch import Tensor

from hf_zoosel.metrics.knn import knn, knn_influence
from hf_zoosel.metrics.leep import leep, leep_influence
from hf_zoosel.metrics.lfc import lfc, lfc_influence
from hf_zoosel.metrics.linear import linear, linear_influence
from hf_zoosel.metrics.logme import logme, logme_influence

Need = Literal["features", "source_probs"]


@dataclass(frozen=True)
class Metric:
    """A transferability metric and what must be known to call it.

    Attributes:
        name: The name a person asks for.
        fn: ``fn(*needs, labels) -> float``; higher is better.
        needs: What is passed before ``labels``, in this order.
        cost: Time in n samples, d features, k classes, z source classes.
        reference: arXiv id, DOI or short citation.
        influence: Same arguments as ``fn``, returns ``(score, influence)`` with influence ``(n,)`` in float64: on
            rows weighted by w (class totals kept) the score is ``score + mean((w - 1) * influence)`` to first order.
            None where no such form is known.
    """

    name: str
    fn: Callable[..., float]
    needs: tuple[Need, ...]
    cost: str
    reference: str
    influence: Callable[..., tuple[float, Tensor]] | None = None


_GRAM = "O(n d min(n, d))"

METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "lfc": Metric("lfc", lfc, ("features",), _GRAM, "arXiv:2102.00084", lfc_influence),
        "leep": Metric("leep", leep, ("source_probs",), "O(n z)", "arXiv:2002.12462", leep_influence),
        "logme": Metric("logme", logme, ("features",), _GRAM, "arXiv:2102.11005", logme_influence),
        "knn": Metric("knn", knn, ("features",), "O(n^2 d)", "doi:10.1109/TIT.1967.1053964", knn_influence),
        "linear": Metric(
            "linear", linear, ("features",), _GRAM, "doi:10.1080/00401706.1974.10489157", linear_influence
        ),
    }
)


def get_metric(metric: str | Metric | Callable[..., float]) -> Metric:
    """Look a metric up by name; a bare ``fn(features, labels) -> float`` becomes a metric of its own name.

    Args:
        metric: A name in ``METRICS``, a ``Metric``, or a function of features and labels.

    Returns:
        The table's entry, or a new one.

    Raises:
        ValueError: If the name is not in the table.
        TypeError: If ``metric`` is neither a name nor callable.

    Example:
        >>> get_metric("leep").needs
        ('source_probs',)
    """
    if isinstance(metric, Metric):
        return metric
    if isinstance(metric, str):
        if metric in METRICS:
            return METRICS[metric]
        close = get_close_matches(metric.lower(), METRICS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"`metric` must be one of {sorted(METRICS)}, got {metric!r}.{hint}")
    if not callable(metric):
        raise TypeError(f"`metric` must be a name, a Metric or a function, got {type(metric).__name__}.")
    name = getattr(metric, "__name__", type(metric).__name__)
    return Metric(name, metric, needs=("features",), cost="unknown", reference="user-defined")
