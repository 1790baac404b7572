"""What is told about a metric where it is published, made from its docstring and its line of the table."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hf_zoosel.hub.docstrings import Docstring, read_docstring
from hf_zoosel.hub.evaluate_inputs import COLUMNS, INPUTS
from hf_zoosel.metrics.registry import Metric, Need

_ADDRESSES = {
    "arXiv": "https://arxiv.org/abs/",
    "doi": "https://doi.org/",
}


def columns_of(metric: Metric) -> tuple[Need, ...]:
    """Its arguments that have one entry a row, in the order of the table."""
    return tuple(need for need in metric.needs if need in COLUMNS)


def references_of(metric: Metric) -> Need | None:
    """The argument that evaluate's ``references`` stands for: the labels, else a second column."""
    columns = columns_of(metric)
    return "labels" if "labels" in columns else columns[1] if len(columns) > 1 else None


def is_per_candidate(metric: Metric) -> bool:
    """Whether each row is a candidate, not a sample, and has a score of its own."""
    return all(COLUMNS[need].shape[0] == "n_candidates" for need in columns_of(metric))


def options_of(metric: Metric) -> Mapping[str, object]:
    """Its own keyword options, by name, with their defaults."""
    parameters = inspect.signature(_documented(metric)).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def docstring_of(metric: Metric) -> Docstring:
    """The docstring that says what ``compute`` returns."""
    return read_docstring(_documented(metric))


def url_of(metric: Metric) -> str | None:
    """Where its paper stands, for a reference such as ``arXiv:2102.00084``."""
    kind, _, number = metric.reference.partition(":")
    return _ADDRESSES[kind] + number if kind in _ADDRESSES else None


def citation_of(metric: Metric) -> str:
    """The papers it comes from, or the table's reference."""
    return docstring_of(metric).sections.get("Reference", metric.reference)


def inputs_text(metric: Metric) -> str:
    """A Markdown list of the arguments of ``compute``."""
    return "\n".join(_inputs(metric))


def output_text(metric: Metric) -> str:
    """What ``compute`` returns."""
    returns = docstring_of(metric).sections.get("Returns", "")
    if is_per_candidate(metric):
        return f"`{{{metric.name!r}: list}}`, one score a row, as each row is a candidate. {returns}"
    if metric.over_zoo is None:
        return f"`{{{metric.name!r}: float}}`. {returns}"
    return (
        f"The terms of one candidate, `{{'{metric.name}_term_1': float, '{metric.name}_term_2': float, ...}}`. "
        "They are not the score, which depends on the other candidates: "
        f"`hf_zoosel.METRICS[{metric.name!r}].over_zoo(terms)` makes the scores `(n_candidates,)` from the terms of "
        f"all, a tensor `(n_candidates, n_terms)`. {returns}"
    )


def example_text(metric: Metric, path: str) -> str:
    """Python that loads the metric from ``path`` and computes it on random numbers."""
    arguments = ", ".join(f"{need}={INPUTS[need].example}" for need in metric.needs)
    generator = "rng = np.random.default_rng(0)\n" if "rng." in arguments else ""
    imports = "import evaluate\nimport numpy as np\n" if "np." in arguments + generator else "import evaluate\n"
    return f"{imports}\n{generator}metric = evaluate.load({path!r})\nmetric.compute({arguments})"


def limits_text(metric: Metric) -> str:
    """What it does not tell, what it costs and what it refuses."""
    sections = docstring_of(metric).sections
    looks = "It never looks at the target data. " if metric.is_static else ""
    refuses = "\n".join(f"- {kind}: {when}" for kind, when in docstring_of(metric).entries("Raises").items())
    paragraphs = [
        f"{looks}It orders checkpoints for one target: compare scores only between checkpoints on the same samples. "
        "No published metric predicts fine-tuning best for every zoo and task.",
        f"Time: {metric.cost}, for n samples, d features, k classes and z source classes.",
        f"It raises\n\n{refuses}" if refuses else "",
        f"It warns: {sections['Warns']}" if "Warns" in sections else "",
    ]
    return "\n\n".join(filter(None, paragraphs))


def _documented(metric: Metric) -> Callable[..., Any]:
    """What ``compute`` in the end calls."""
    return metric.over_zoo if "scores" in metric.needs and metric.over_zoo is not None else metric.fn


def _inputs(metric: Metric) -> Iterator[str]:
    columns = columns_of(metric)
    for need in metric.needs:
        asked = INPUTS[need]
        also = {columns[0]: "; also as `predictions`", references_of(metric): "; also as `references`"}.get(need, "")
        streamed = "" if need in columns else "; given once, to `compute`"
        yield f"- **{need}** ({asked.dtype}, shape `{asked.shape_text}`): {asked.meaning}{also}{streamed}."
    about = docstring_of(metric).entries("Args")
    for option, default in options_of(metric).items():
        yield f"- **{option}** (default `{default!r}`): {about.get(option, 'see the function.')}"
