"""The house: who may import whom, as README.md's table says."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "hf_zoosel"
FILES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def rooms_of_the_readme():
    """Room -> level, from the table under "How the code is laid out"."""
    text = (PACKAGE.parent / "README.md").read_text()
    rows = re.findall(r"^\| (`.+?`) \| (\d) \|", text, re.MULTILINE)
    return {name.strip("/"): int(level) for names, level in rows for name in re.findall(r"`([\w/.]+)`", names)}


def room_of(path):
    return path.relative_to(PACKAGE).parts[0]


def rooms_imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            if name.startswith("hf_zoosel."):
                room = name.split(".")[1]
                yield room if (PACKAGE / room).is_dir() else f"{room}.py"


def test_the_readme_names_every_room():
    assert {room_of(path) for path in FILES} == set(rooms_of_the_readme())


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_from_lower_levels(path):
    levels = rooms_of_the_readme()
    own = room_of(path)
    for room in rooms_imported(path):
        assert room == own or levels[room] < levels[own], f"{own} imports {room}"
