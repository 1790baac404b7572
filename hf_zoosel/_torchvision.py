"""Make ``import torchvision`` work where its CUDA build stands beside a CPU build of torch.

Package registries serve one torchvision wheel, built for CUDA. Beside a CPU-only torch its compiled
operators do not load and ``import torchvision`` dies with "operator torchvision::nms does not exist",
taking timm and evaluate with it. Only two operator *schemas* are missed at import; declaring them is
enough for everything this package uses (transforms, timm, image processors). The compiled operators
themselves stay unavailable and say so when they are called.
"""

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_kept_alive: list[Any] = []  # torch drops a library's schemas with the object


def mend_torchvision() -> bool:
    """Declare the operator schemas a mismatched torchvision lacks; call before importing timm or torchvision.

    Does nothing on a healthy install, once torchvision is imported, or when it is not installed.

    Returns:
        Whether anything had to be declared by this call.
    """
    if _kept_alive or "torchvision" in sys.modules or not _built_for_cuda("torchvision"):
        return False
    import torch

    if torch.version.cuda is not None:
        return False
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        library.define(schema)
    _kept_alive.append(library)
    return True


def _built_for_cuda(package: str) -> bool:
    """Read the build from the package's version.py without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return False
    version_file = Path(spec.origin).with_name("version.py")
    text = version_file.read_text() if version_file.is_file() else ""
    return re.search(r"""\+cu\d|^cuda\b.*=\s*['"]""", text, re.M) is not None
