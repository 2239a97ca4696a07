"""Fingerprints the code that a component depends on, so that an edit re-runs it and the components after it."""

import ast
import functools
import hashlib
import importlib.util
from collections.abc import Iterable
from pathlib import Path

_OUR_PACKAGES = ("schema", "runtime", "images", "components", "trainer")


def source_fingerprint(*modules: str) -> str:
    """BLAKE2b over the source of these modules and of all our modules that they import, directly or indirectly.

    A template with a module's name (`page.html.jinja` beside `page.py`) is part of its source.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(_reachable_sources(modules), key=lambda p: p.parts[-2:]):
        digest.update("/".join(path.parts[-2:]).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _reachable_sources(modules: Iterable[str]) -> set[Path]:
    seen: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module in seen or module.split(".")[0] not in _OUR_PACKAGES:
            continue
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            continue
        seen[module] = Path(spec.origin)
        waiting += _imports(seen[module].read_bytes())
    templates = {template for path in seen.values() for template in path.parent.glob(f"{path.stem}.*.jinja")}
    return {*seen.values(), *templates}


@functools.cache
def _is_package(module: str) -> bool:
    if module.split(".")[0] not in _OUR_PACKAGES:
        return False
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.submodule_search_locations is not None


@functools.cache
def _imports(source: bytes) -> tuple[str, ...]:
    """The same modules are parts of most fingerprints of a run."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.append(node.module)
            if _is_package(node.module):  # `from components.evaluation import gate`
                names += [f"{node.module}.{alias.name}" for alias in node.names]
    return tuple(names)
