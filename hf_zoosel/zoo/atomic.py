"""Files that are whole or not there."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to, which takes its place once all of it is on the disk.

    Where writing fails, or the process is killed, what was at ``path`` stays.
    """
    # not mkstemp's name and mode: a shared cache is for others to read too
    temporary = path.parent / f".{path.name}-{secrets.token_hex(4)}"
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
