"""The table of metrics. To add one: write its file, then add one line here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, get_args

from torch import Tensor

from hf_zoosel.metrics.baselines import random_score, size, source_accuracy
from hf_zoosel.metrics.consensus import consensus, own_scores
from hf_zoosel.metrics.domain_similarity import domain_similarity, domain_similarity_influence
from hf_zoosel.metrics.etran import etran_over_zoo, etran_terms
from hf_zoosel.metrics.feature_metrics import feature_metrics_over_zoo, feature_metrics_terms
from hf_zoosel.metrics.gbc import gbc, gbc_influence
from hf_zoosel.metrics.h_score import h_score
from hf_zoosel.metrics.knn import knn, knn_influence
from hf_zoosel.metrics.leep import leep, leep_influence
from hf_zoosel.metrics.lfc import lfc, lfc_influence
from hf_zoosel.metrics.lgc import lgc, lgc_influence
from hf_zoosel.metrics.linear import linear, linear_influence
from hf_zoosel.metrics.logme import logme, logme_influence
from hf_zoosel.metrics.nce import nce, nce_influence
from hf_zoosel.metrics.ncti import ncti_over_zoo, ncti_terms
from hf_zoosel.metrics.nleep import nleep, nleep_influence
from hf_zoosel.metrics.otce import otce, otce_influence
from hf_zoosel.metrics.pactran import pactran, pactran_influence
from hf_zoosel.metrics.pactran_probs import pactran_dirichlet, pactran_gamma
from hf_zoosel.metrics.parc import parc, parc_influence
from hf_zoosel.metrics.rsa import rsa, rsa_influence
from hf_zoosel.metrics.sfda import sfda, sfda_influence
from hf_zoosel.metrics.transrate import transrate, transrate_influence

RowPart = Literal[
    "features",  # (n, d) input of the classifier
    "source_logits",  # (n, z) output of the source head
    "source_probs",  # (n, z) its softmax
    "map_statistics",  # (n, 2) see feature_metrics.map_statistics
    "gradients",  # (n, 10,000) of the mean feature; see features/gradients.py
    "gradients_logits",  # (n, 10,000) of the sum of the source logits
    "gradients_random",  # (n, 10,000) of a random head
]
Fact = Literal[
    "labels",  # (n,)
    "reference",  # (n, r) features of the same samples by a reference network
    "source_means",  # (z, d) mean features of the source classes
    "source_counts",  # (z,) how many source samples each has
    "source_features",  # (m, d) features of source samples
    "source_labels",  # (m,) their classes
    "n_parameters",  # of the whole network
    "source_accuracy",  # on the data it was trained on, in [0, 1]
    "identity",  # text that no other candidate has
    "scores",  # the candidate's scores by the other metrics that were asked for
]
Need = RowPart | Fact
PER_ROW = frozenset({*get_args(RowPart), "labels", "reference"})


@dataclass(frozen=True)
class Metric:
    """A transferability metric and what must be known to call it.

    Attributes:
        name: The name a person asks for.
        fn: ``fn(*needs) -> float``, higher is better. Zoo-relative metrics return a tuple of terms instead.
        needs: What is passed, in this order.
        cost: Time in n samples, d features, k classes, z source classes.
        reference: arXiv id, DOI or short citation.
        influence: Same arguments as ``fn``, returns ``(score, influence)`` with influence ``(n,)`` in float64: on
            rows weighted by w (class totals kept) the score is ``score + mean((w - 1) * influence)`` to first order.
            None where no such form is known.
        over_zoo: Turns the terms of all m candidates ``(m, q)`` into their scores ``(m,)``; None for a metric whose
            score depends on the candidate alone.
    """

    name: str
    fn: Callable[..., Any]
    needs: tuple[Need, ...] = ("features", "labels")
    cost: str = "unknown"
    reference: str = "user-defined"
    influence: Callable[..., tuple[float, Tensor]] | None = None
    over_zoo: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        known = (*get_args(RowPart), *get_args(Fact))
        unknown = [need for need in self.needs if need not in known]
        if unknown:
            raise ValueError(f"`needs` must be a tuple of some of {list(known)}, got {unknown}.")
        if "scores" in self.needs and (len(self.needs) > 1 or self.over_zoo is None):
            raise ValueError(f"`needs` must be ('scores',) alone, with `over_zoo` given, got {self.needs}.")

    @property
    def is_static(self) -> bool:
        """Whether it never looks at the target: a baseline that every other metric should beat."""
        return not PER_ROW.intersection(self.needs) and "scores" not in self.needs

    @property
    def parts(self) -> tuple[str, ...]:
        """What a forward pass must leave behind for it."""
        logits = ("source_logits",) if "source_probs" in self.needs else ()
        return (*logits, *(need for need in self.needs if need in get_args(RowPart) and need != "source_probs"))


_GRAM = "O(n d min(n, d))"
_ON_FEATURES: tuple[Need, ...] = ("features", "labels")
_ON_PROBS: tuple[Need, ...] = ("source_probs", "labels")
_LGC = "O(n^2 p), p <= 10,000"


def _lines(*metrics: Metric) -> Mapping[str, Metric]:
    return MappingProxyType({metric.name: metric for metric in metrics})


METRICS = _lines(
    Metric("lfc", lfc, _ON_FEATURES, _GRAM, "arXiv:2102.00084", lfc_influence),
    Metric("lgc", lgc, ("gradients", "labels"), _LGC, "arXiv:2102.00084", lgc_influence),
    Metric("leep", leep, _ON_PROBS, "O(n z)", "arXiv:2002.12462", leep_influence),
    Metric("nce", nce, _ON_PROBS, "O(n z)", "arXiv:1908.08142", nce_influence),
    Metric("nleep", nleep, _ON_FEATURES, "O(n d min(n, d) + n k d)", "arXiv:2011.11200", nleep_influence),
    Metric("logme", logme, _ON_FEATURES, _GRAM, "arXiv:2102.11005", logme_influence),
    Metric("knn", knn, _ON_FEATURES, "O(n^2 d)", "doi:10.1109/TIT.1967.1053964", knn_influence),
    Metric("linear", linear, _ON_FEATURES, _GRAM, "doi:10.1080/00401706.1974.10489157", linear_influence),
    Metric("h_score", h_score, _ON_FEATURES, _GRAM, "arXiv:2110.06893"),
    Metric("transrate", transrate, _ON_FEATURES, _GRAM, "arXiv:2106.09362", transrate_influence),
    Metric("gbc", gbc, _ON_FEATURES, _GRAM, "arXiv:2111.12780", gbc_influence),
    Metric("pactran", pactran, _ON_FEATURES, "O(n d (min(n, d) + k))", "arXiv:2203.05126", pactran_influence),
    Metric("sfda", sfda, _ON_FEATURES, _GRAM, "arXiv:2207.03036", sfda_influence),
    Metric("parc", parc, _ON_FEATURES, "O(n^2 (d + log n))", "arXiv:2111.06977", parc_influence),
    Metric("rsa", rsa, ("features", "reference"), "O(n^2 (d + log n))", "arXiv:2102.00084", rsa_influence),
    Metric(
        "domain_similarity",
        domain_similarity,
        ("features", "labels", "source_means", "source_counts"),
        "O(n d + k z (d + k + z))",
        "arXiv:1806.06193",
        domain_similarity_influence,
    ),
    Metric(
        "otce",
        otce,
        ("features", "labels", "source_features", "source_labels"),
        "O(m^2 (d + m)), m <= 1,000",
        "arXiv:2103.13843",
        otce_influence,
    ),
    Metric(
        "etran",
        etran_terms,
        ("features", "source_logits", "labels"),
        _GRAM,
        "arXiv:2308.02027",
        over_zoo=etran_over_zoo,
    ),
    Metric("ncti", ncti_terms, _ON_FEATURES, _GRAM, "ICCV 2023", over_zoo=ncti_over_zoo),
    Metric(
        "feature_metrics",
        feature_metrics_terms,
        ("map_statistics",),
        "O(n)",
        "Ueno and Kondo 2020",
        over_zoo=feature_metrics_over_zoo,
    ),
    Metric("consensus", own_scores, ("scores",), "O(m^2) in m candidates", "Borda 1781", over_zoo=consensus),
    Metric("size", size, ("n_parameters",), "O(1)", "static baseline"),
    Metric("source_accuracy", source_accuracy, ("source_accuracy",), "O(1)", "static baseline"),
    Metric("random", random_score, ("identity",), "O(1)", "static baseline"),
)

VARIANTS = _lines(
    Metric(
        "lfc_centered",
        partial(lfc, centered=True),
        _ON_FEATURES,
        _GRAM,
        "arXiv:2102.00084",
        partial(lfc_influence, centered=True),
    ),
    Metric(
        "lfc_cosine",
        partial(lfc, cosine=True),
        _ON_FEATURES,
        _GRAM,
        "arXiv:2102.00084",
        partial(lfc_influence, cosine=True),
    ),
    Metric("lgc_logits", lgc, ("gradients_logits", "labels"), _LGC, "arXiv:2102.00084", lgc_influence),
    Metric("lgc_random", lgc, ("gradients_random", "labels"), _LGC, "arXiv:2102.00084", lgc_influence),
    Metric("pactran_dirichlet", pactran_dirichlet, _ON_PROBS, "O(n z k)", "arXiv:2203.05126"),
    Metric("pactran_gamma", pactran_gamma, _ON_PROBS, "O(n z k)", "arXiv:2203.05126"),
)


def get_metric(metric: str | Metric | Callable[..., float]) -> Metric:
    """Look a metric up by name; a bare ``fn(features, labels) -> float`` becomes a metric of its own name.

    Args:
        metric: A name in ``METRICS`` or ``VARIANTS``, a function of theirs, a ``Metric``, or any other function of
            features and labels.

    Returns:
        The table's entry, or a new one.

    Raises:
        ValueError: If the name is in neither table.
        TypeError: If ``metric`` is neither a name nor callable.

    Example:
        >>> get_metric("leep").needs
        ('source_probs', 'labels')
    """
    if isinstance(metric, Metric):
        return metric
    if isinstance(metric, str):
        known = {**METRICS, **VARIANTS}
        if metric in known:
            return known[metric]
        close = get_close_matches(metric.lower(), known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"`metric` must be one of {sorted(METRICS)} or {sorted(VARIANTS)}, got {metric!r}.{hint}")
    for entry in (*METRICS.values(), *VARIANTS.values()):
        if metric is entry.fn:
            return entry
    if not callable(metric):
        raise TypeError(f"`metric` must be a name, a Metric or a function, got {type(metric).__name__}.")
    name = getattr(metric, "__name__", type(metric).__name__)
    return Metric(name, metric)
