"""Keep Pillow from warning about metadata while images are decoded, from any number of threads."""

import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_IGNORE_PILLOW = ("ignore", None, Warning, re.compile(r"PIL(\.|$)"), 0)  # as warnings.filterwarnings stores it
_lock = threading.Lock()
_inside = 0


@contextmanager
def pillow_warnings_ignored() -> Iterator[None]:
    """Ignore every warning issued by Pillow's own modules while any thread is inside.

    ``warnings.catch_warnings`` saves and restores a process-wide list, so two threads that overlap leave it
    wrong. Here the first thread in adds one filter and the last one out removes it.
    """
    global _inside
    with _lock:
        _inside += 1
        if _inside == 1:
            warnings.filters.insert(0, _IGNORE_PILLOW)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0 and _IGNORE_PILLOW in warnings.filters:  # gone if a catch_warnings block ended meanwhile
                warnings.filters.remove(_IGNORE_PILLOW)  # type: ignore[attr-defined]
