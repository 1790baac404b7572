"""Folders that ``evaluate.load`` takes, and that the Hub takes as Spaces: one for each metric."""

import os
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from string import Template

from hf_zoosel.hub import evaluate_text as text
from hf_zoosel.metrics.registry import METRICS, VARIANTS, Metric, get_metric

_SDK_VERSION = "3.19.1"  # evaluate's widget needs gradio before 4 (evaluate issue 602); later 3.x want numpy 1

_REQUIREMENTS = Template("""hf-zoosel[evaluate]>=$version
# for gradio 3.19
fastapi<0.112
pydantic<2
""")

_MODULE = Template('''"""The metric $name of hf_zoosel; what it is stands in README.md."""

from hf_zoosel.hub import evaluate_adapter


class $class_name(evaluate_adapter.TransferabilityMetric):
    """Scores checkpoints by ``hf_zoosel.METRICS`` or ``VARIANTS`` of this name."""

    metric_name = "$name"
''')

_APP = Template("""from pathlib import Path

import hf_zoosel.hub  # noqa: F401  # before evaluate: mends a torchvision that does not fit torch

import evaluate
from evaluate.utils import launch_gradio_widget

module = evaluate.load(str(Path(__file__).with_name("$name.py")))
launch_gradio_widget(module)
""")

_CARD = """---
{{ card_data }}
---

# Metric Card for {{ title }}

## Metric Description

{{ description }}

{{ body }}

## How to Use

After `pip install "hf-zoosel[evaluate]"`, from the Hub or from this folder:

```python
{{ example }}
```

Arrays of numpy and tensors of torch are much faster than nested lists. `add_batch` takes the rows in pieces.

### Inputs

{{ inputs }}

### Output Values

{{ output }}

## Limitations and Bias

{{ limits }}

## Citation

{{ citation }}

## Further References

{{ further }}
"""


def write_spaces(folder: str | os.PathLike[str], metrics: Iterable[str] | None = None) -> list[Path]:
    """Write a folder for each metric that ``evaluate.load`` loads and that can be published as a Space.

    Each holds ``NAME.py``, which only imports this package (evaluate copies it elsewhere), the card ``README.md``
    with the header of a Space, ``requirements.txt`` and ``app.py``, which shows evaluate's widget. Files of those
    names are written over. On a CPU machine whose torchvision is built for CUDA, import this package before evaluate.

    Args:
        folder: Where to; made if it is not there.
        metrics: Names in ``METRICS`` or ``VARIANTS``; all of them when None.

    Returns:
        The folders, ``folder/NAME``, in the order of ``metrics``.

    Raises:
        ValueError: If a name is in neither table.

    Example:
        >>> from tempfile import mkdtemp
        >>> [path.name for path in write_spaces(mkdtemp(), ["lfc", "knn"])]
        ['lfc', 'knn']
    """
    chosen = [get_metric(name) for name in ([*METRICS, *VARIANTS] if metrics is None else metrics)]
    return [_write_space(Path(folder) / metric.name, metric) for metric in chosen]


def _write_space(folder: Path, metric: Metric) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    class_name = "".join(part.capitalize() for part in metric.name.split("_"))  # evaluate makes the name of it
    files = {
        f"{metric.name}.py": _MODULE.substitute(name=metric.name, class_name=class_name),
        "app.py": _APP.substitute(name=metric.name),
        "requirements.txt": _REQUIREMENTS.substitute(version=version("hf-zoosel")),
        "README.md": _card(metric),
    }
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    return folder


def _card(metric: Metric) -> str:
    from huggingface_hub import SpaceCard, SpaceCardData

    documented = text.docstring_of(metric)
    header = SpaceCardData(
        title=metric.name,
        description=documented.summary,
        sdk="gradio",
        sdk_version=_SDK_VERSION,
        python_version="3.11",
        app_file="app.py",
        license="apache-2.0",
        pinned=False,
        tags=["evaluate", "metric"],
    )
    parts = {
        "body": documented.body,
        "example": text.example_text(metric, f"USER/{metric.name}"),
        "inputs": text.inputs_text(metric),
        "output": text.output_text(metric),
        "limits": text.limits_text(metric),
        "citation": text.citation_of(metric),
        "further": text.url_of(metric) or metric.reference,
    }
    return str(SpaceCard.from_template(header, template_str=_CARD, **parts))
