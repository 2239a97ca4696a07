"""Prints the test files that a change affects, for `make quick`; `affected_tests.py COMMIT` compares with a commit.

A changed module affects the test of its name, because tests mirror the tree, and every test file that imports it. If no
test file imports it, the change affects those that import one of its importers, and so on. Any other changed file
affects the tests in its mirrored folder and the test files that name it. Only `make check` runs what every test shares,
such as tests/conftest.py or the locks, through all tests.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePath

from repository import REPOSITORY

PACKAGES = ("schema", "runtime", "images", "components", "trainer", "serving", "pipeline", "bench")
ALWAYS = {"tests/test_architecture.py"}
DOCUMENTATION = "tests/test_documentation.py"


def affected_tests(changed: set[str], repository: Path = REPOSITORY) -> set[str]:
    """The test files that the changed files affect; all are paths relative to the repository."""
    imports = {str(path.relative_to(repository)): set(_imports(path)) for path in _python_files(repository)}
    found = {name for name in changed if _is_test(name) and (repository / name).exists()}
    for name in changed - found:
        if not name.endswith(".py") or "/" not in name:
            found |= _tests_that_name(name, imports, repository) | {DOCUMENTATION}
        elif name.endswith("/conftest.py"):
            folder = name.removesuffix("conftest.py")
            found |= {test for test in filter(_is_test, imports) if test.startswith(folder) and folder != "tests/"}
        else:
            mirrored = f"tests/{PurePath(name).parent}/test_{PurePath(name).name}"
            found |= {mirrored} & set(imports) | _nearest_tests(name, imports)
    return found | ALWAYS if changed else set()


def changed_files(commit: str) -> set[str]:
    """Files that differ from `commit`, and files that Git neither tracks nor ignores."""
    commands = (["diff", "--name-only", "--no-renames", commit], ["ls-files", "--others", "--exclude-standard"])
    listed = [subprocess.run(["git", *c], cwd=REPOSITORY, capture_output=True, text=True, check=True) for c in commands]
    return {line for one in listed for line in one.stdout.splitlines()}


def _nearest_tests(name: str, imports: dict[str, set[str]]) -> set[str]:
    """Test files that import the module in `name`; if none does, those that import one of its importers, and so on."""
    seen: set[str] = set()
    wave = {name}
    while wave:
        modules = {_module(one) for one in wave}
        importers = {path for path, imported in imports.items() if imported & modules}
        if tests := {path for path in importers if _is_test(path)}:
            return tests
        seen |= wave
        wave = importers - seen
    return set()


def _tests_that_name(name: str, imports: dict[str, set[str]], repository: Path) -> set[str]:
    """For a file that is not Python, such as a template: test files that name it, and those in its mirrored folder."""
    folder, file_name = f"tests/{PurePath(name).parent}", PurePath(name).name
    return {
        test
        for test in filter(_is_test, imports)
        if str(PurePath(test).parent) == folder or file_name in (repository / test).read_text()
    }


def _python_files(repository: Path) -> Iterator[Path]:
    for folder in (*PACKAGES, "tests"):
        yield from (repository / folder).rglob("*.py")


def _imports(path: Path) -> Iterator[str]:
    """The full names of everything that a file imports; `from a import b` may import the module `a` or `a.b`."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _module(name: str) -> str:
    """The name by which a file is imported; tests/support is on the path."""
    path = PurePath(name)
    path = path.relative_to("tests/support") if path.is_relative_to("tests/support") else path
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _is_test(name: str) -> bool:
    return name.startswith("tests/") and PurePath(name).match("test_*.py")


if __name__ == "__main__":
    print(*sorted(affected_tests(changed_files(sys.argv[1] if len(sys.argv) > 1 else "HEAD"))))
