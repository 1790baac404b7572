"""What an object of a person's own is: its state, its code and the files its code stands in."""

import hashlib
import pickletools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def fingerprint(thing: Any) -> str | None:
    """Digest of an object, the same in every process; None if it cannot be pickled.

    Functions and classes of ``__main__`` count by their code; those of an importable module are pickled by
    name alone, so the source file of every module named in the pickle counts too. Modules that these
    import in turn do not.

    Args:
        thing: Anything.

    Example:
        >>> fingerprint([1, 2]) == fingerprint([1, 2]), fingerprint([1, 2]) == fingerprint([1, 3])
        (True, False)
    """
    from datasets.fingerprint import dumps  # behind the public Hasher.hash; the pickle names modules

    try:
        pickled = dumps(thing)
    except Exception:  # dill fails in as many ways as there are objects
        return None
    hasher = hashlib.sha256(pickled)
    for file in _source_files(pickled):
        hasher.update(hashlib.sha256(file.read_bytes()).digest())
    return hasher.hexdigest()


def _source_files(pickled: bytes) -> Iterator[Path]:
    words = {arg.split(" ")[0] for _, arg, _ in pickletools.genops(pickled) if isinstance(arg, str) and arg}
    for name in sorted(words.intersection(sys.modules) - {"__main__"}):
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None and file.endswith(".py") and Path(file).is_file():
            yield Path(file)
