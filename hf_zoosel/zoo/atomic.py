"""Files that are whole or not there."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to, which takes its place once all of it is on the disk.

    Where writing fails, or the process is killed, what was at ``path`` stays.
    """
    temporary = path.parent / f".{path.name}-{secrets.token_hex(4)}"
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # every new file's, which safetensors would not keep: others read it too
        yield temporary
        temporary.chmod(mode)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """A temporary folder to write files to, which move to ``folder`` once all of them are on the disk.

    Files that are there keep their place unless a new one has their name. Where writing fails, nothing changes.
    """
    exists = folder.is_dir()
    where = folder if exists else folder.parent
    where.mkdir(parents=True, exist_ok=True)
    temporary = where / f".{folder.name}-{secrets.token_hex(4)}"
    temporary.mkdir()
    try:
        yield temporary
        files = sorted(temporary.iterdir())
        for path in files:
            with path.open("rb") as file:
                os.fsync(file.fileno())
        if not exists:
            os.replace(temporary, folder)
            return
        for path in files:
            os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
