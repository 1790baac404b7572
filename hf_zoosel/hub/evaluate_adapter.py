"""Every metric of the table as a metric of ``evaluate``: declares its inputs, makes tensors of them, calls it.

Rows travel through evaluate's Arrow files in float64 as whole arrays; nothing becomes a Python list, which
is how evaluate itself would carry vectors and what makes it slow (``tests/benchmarks/bench_evaluate.py``).
"""

from typing import Any, ClassVar, cast

try:
    import evaluate
except ImportError as error:
    raise ImportError("This needs evaluate. Install it with `pip install hf-zoosel[evaluate]`.") from error

import torch
from datasets import Features, Sequence, Value
from torch import Tensor

from hf_zoosel.hub import evaluate_text as text
from hf_zoosel.hub.evaluate_inputs import COLUMNS, FACTS, INPUTS, as_array, as_tensor, from_column
from hf_zoosel.metrics.registry import Metric, Need, get_metric


class _Arrays(Features):
    """Features whose batches are arrays already: written to Arrow as they are."""

    def encode_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        return batch


class TransferabilityMetric(evaluate.Metric):
    """One metric of the table; a subclass says which.

    ``compute``, ``add_batch`` and ``add`` take the metric's needs by name, as numpy arrays, torch tensors or
    nested lists; ``predictions`` and ``references`` stand for the first of them and the labels. Options of the
    metric, and facts about the source that have no rows, go to ``compute``. Needs of other metrics are ignored, so
    that ``evaluate.combine`` can give each metric its own.

    Attributes:
        metric_name: A name in ``METRICS`` or ``VARIANTS``.

    Example:
        >>> class Knn(TransferabilityMetric):
        ...     metric_name = "knn"
        >>> Knn(keep_in_memory=True).compute(features=[[0.0], [1.0], [2.5], [9.0], [9.5]], labels=[0, 0, 1, 1, 1])
        {'knn': 0.8}
    """

    metric_name: ClassVar[str]

    @property
    def metric(self) -> Metric:
        """Its line of the table."""
        return get_metric(self.metric_name)

    def compute(self, *, predictions: Any = None, references: Any = None, **given: Any) -> dict[str, Any] | None:
        """Compute the metric over what was added and is given here; None but in the first of several processes."""
        named = self._by_name(predictions, references, given)
        missing = [need for need in self.metric.needs if need in FACTS and need not in named]
        if missing:
            raise ValueError(f"`compute` of {self.metric.name!r} must be given {missing} too, got {sorted(named)}.")
        result = super().compute(**{n: as_tensor(n, value) if n in FACTS else value for n, value in named.items()})
        if isinstance(result, Exception):
            raise result
        return cast("dict[str, Any] | None", result)

    def add_batch(self, *, predictions: Any = None, references: Any = None, **given: Any) -> None:
        """Add rows, to be computed over later."""
        named = self._by_name(predictions, references, given)
        columns = text.columns_of(self.metric)
        if set(named) != set(columns):
            raise ValueError(f"A batch must have {list(columns)}, got {list(named)}.")
        batch = {need: as_array(need, named[need]) for need in columns}
        n = len(batch[columns[0]])
        for need, column in batch.items():
            if len(column) != n:
                raise ValueError(f"`{need}` must have {n} rows, as many as `{columns[0]}`, got shape {column.shape}.")
        super().add_batch(**batch)

    def add(self, *, prediction: Any = None, reference: Any = None, **given: Any) -> None:
        """Add one row."""
        row = {"predictions": prediction, "references": reference, **given}
        self.add_batch(**{name: [value] for name, value in row.items() if value is not None})

    def _info(self) -> evaluate.MetricInfo:
        metric, address = self.metric, text.url_of(self.metric)
        info = evaluate.MetricInfo(
            description=text.docstring_of(metric).summary,
            citation=text.citation_of(metric),
            inputs_description=f"\n{text.inputs_text(metric)}\n\nReturns {text.output_text(metric)}\n",
            features=_Arrays({need: _feature(need) for need in text.columns_of(metric)}),
            reference_urls=[] if address is None else [address],
        )
        info.format = "arrow"  # set late: its constructor wants scalars for any format, which only numpy's needs
        return info

    def _compute(self, **inputs: Any) -> dict[str, Any] | Exception:
        """Call the metric; an error is handed back, as evaluate would leave its files and locks behind it."""
        try:
            given = {name: from_column(name, one) if name in COLUMNS else one for name, one in inputs.items()}
            return _results(self.metric, [given.pop(need) for need in self.metric.needs], given)
        except Exception as error:
            return error

    def _by_name(self, predictions: Any, references: Any, given: dict[str, Any]) -> dict[str, Any]:
        """What is given of the metric's own needs and options; other metrics' needs are left out."""
        metric = self.metric
        own = [*metric.needs, *text.options_of(metric)]
        unknown = sorted(set(given).difference(own, INPUTS))
        if unknown:
            raise TypeError(f"`compute` of {metric.name!r} must be given some of {own}, got {unknown}.")
        named = {name: value for name, value in given.items() if name in own and value is not None}
        meant = {"predictions": text.columns_of(metric)[0], "references": text.references_of(metric)}
        for alias, value in (("predictions", predictions), ("references", references)):
            if value is None:
                continue
            name = meant[alias]
            if name is None or name in named:
                raise TypeError(
                    f"`{alias}` must not be given to {metric.name!r} with {sorted(named)}: it means {name}."
                )
            named[name] = value
        return named


def _feature(need: Need) -> Any:
    value = Value(COLUMNS[need].dtype)
    return Sequence(value) if len(COLUMNS[need].shape) == 2 else value


def _results(metric: Metric, arguments: list[Any], options: dict[str, Any]) -> dict[str, Any]:
    if text.is_per_candidate(metric):
        rows = zip(*(c.tolist() if isinstance(c, Tensor) else c for c in arguments), strict=True)
        values = [metric.fn(*row, **options) for row in rows]
        if metric.over_zoo is not None:
            values = metric.over_zoo(torch.tensor(values, dtype=torch.float64)).tolist()
        return {metric.name: values}
    value = metric.fn(*arguments, **options)
    if metric.over_zoo is None:
        return {metric.name: float(value)}
    return {f"{metric.name}_term_{number}": term for number, term in enumerate(value, start=1)}
