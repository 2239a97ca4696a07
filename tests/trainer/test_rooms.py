"""The trainer's folders import each other in one direction."""

import ast

import pytest
from repository import REPOSITORY

BELOW = {
    "settings": set(),
    "backbones": {"settings"},
    "families": {"settings", "backbones"},
    "data": {"settings", "families"},
    "scoring": {"settings", "families", "data"},
    "fitting": {"settings", "families", "data", "scoring"},
    "export": {"settings", "families", "data", "scoring"},
}


@pytest.mark.parametrize("room", BELOW)
def test_a_folder_imports_only_those_below_it(room):
    sources = "\n".join(path.read_text() for path in (REPOSITORY / "trainer" / room).rglob("*.py"))
    modules = {node.module or "" for node in ast.walk(ast.parse(sources)) if isinstance(node, ast.ImportFrom)}
    imported = {module.split(".")[1] for module in modules if module.startswith("trainer.")}
    assert imported <= BELOW[room] | {room}
