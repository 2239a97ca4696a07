"""Imports point one way: schema <- components, trainer <- pipeline; serving needs only schema."""

import ast
import subprocess
import sys

import pytest
from repository import REPOSITORY

ALLOWED = {
    "schema": {"schema"},
    "runtime": {"schema", "runtime"},
    "images": {"schema", "runtime", "images"},
    "components": {"schema", "runtime", "images", "components"},
    "trainer": {"schema", "runtime", "images", "trainer"},
    "serving": {"schema", "runtime", "images", "serving"},
    "pipeline": {"schema", "runtime", "images", "components", "trainer", "serving", "pipeline"},
}


def our_imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        yield from {name.split(".")[0] for name in names} & set(ALLOWED)


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_imports_only_what_is_below_it(package):
    found = {name for path in (REPOSITORY / package).rglob("*.py") for name in our_imports(path)}
    assert found <= ALLOWED[package]


def test_the_command_line_starts_without_what_only_a_command_needs():
    heavy = {"pydantic", "rich", "numpy", "tensorflow", "tfx", "apache_beam"}
    program = f"import sys, pipeline.cli; print(sorted({heavy} & set(sys.modules)))"
    started = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert started.stdout == "[]\n"
