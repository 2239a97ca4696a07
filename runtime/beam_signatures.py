"""Speeds up the construction of Beam pipelines by inspecting the signature of each method once."""

import logging
import weakref
from collections.abc import Callable
from typing import Any

_LOG = logging.getLogger(__name__)
Arguments = tuple[list[str], list[Any]]
"""Names and default values of a function's positional arguments."""


def remember_signatures() -> None:
    """Make Beam keep what it finds out about a method; saves more than a second of a pipeline with a hundred steps.

    Beam looks for state and timers among all methods of a DoFn, some thirty, whenever it looks at a step: ten times.
    Nearly all of them are inherited, so it inspects the same few functions tens of thousands of times.
    """
    try:
        from apache_beam.transforms import core

        if not hasattr(core.get_function_args_defaults, "known"):
            core.get_function_args_defaults = _remembering(core.get_function_args_defaults)
    except (ImportError, AttributeError) as error:  # not a public API; pipelines work without it, only slower
        _LOG.warning("cannot keep the signatures of Beam's methods (%s); pipelines start more slowly", error)


def _remembering(inspect: Callable[[Any], Arguments]) -> Callable[[Any], Arguments]:
    """`inspect`, called once for each function that is called as a method."""
    known: weakref.WeakKeyDictionary[Any, Arguments] = weakref.WeakKeyDictionary()

    def arguments_of(function: Any) -> Arguments:
        own = getattr(function, "__func__", None)
        if own is None:
            return inspect(function)
        if own not in known:
            known[own] = inspect(function)
        names, defaults = known[own]
        return list(names), list(defaults)

    arguments_of.known = known  # type: ignore[attr-defined]
    return arguments_of
