"""TensorFlow and TFX make a million objects that live to the end; Python's garbage collector need not look at them."""

import atexit
import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def imported_for_good() -> Iterator[None]:
    """For import statements: they take a third less, and what they made is never looked through for garbage.

    Nor is anything, once the process ends: that would take two seconds more.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        atexit.register(gc.freeze)
