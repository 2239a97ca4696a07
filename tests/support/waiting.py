"""Waits for what another thread or process is about to do."""

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Return as soon as `condition` holds; fail after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"still not the case after {timeout_s:g} s"
        time.sleep(0.01)
