"""Speeds up heavy imports by excluding their objects from garbage collection, and holds back what they print."""

import atexit
import contextlib
import gc
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def imported_for_good() -> Iterator[None]:
    """For import statements: makes them a third faster, and excludes the objects they create from garbage collection.

    Collection when the process ends is avoided as well, which saves two seconds. What libraries write to standard error
    while they are imported is shown only if the import fails.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        with _held_back():
            yield
    finally:
        gc.freeze()
        if collects:  # otherwise this block is within another one
            gc.enable()
        atexit.register(gc.freeze)


def import_on_demand(package: str) -> None:
    """Let modules of `package` be imported without all that the package itself imports.

    It does so as soon as a name is looked up in it that is none of the modules imported so far.
    """
    if package in sys.modules:
        return
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    execute = spec.loader.exec_module

    def complete(name: str) -> Any:
        if name.startswith("__"):  # Python itself asks for these
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        vars(module).pop("__getattr__", None)
        execute(module)
        return getattr(module, name)

    vars(module)["__getattr__"] = complete
    sys.modules[package] = module
    parent, _, name = package.rpartition(".")
    if parent:
        setattr(sys.modules[parent], name, module)


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """Keep the process's standard error in a file, and write it out if the block fails.

    TensorFlow 2.21 prints six lines whatever TF_CPP_MIN_LOG_LEVEL says, before it can be configured.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held, os.fdopen(os.dup(2), "wb") as terminal:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            sys.stderr.flush()
            held.seek(0)
            shutil.copyfileobj(held, terminal)
            raise
        finally:
            sys.stderr.flush()
            os.dup2(terminal.fileno(), 2)
