"""Speeds up the construction of Beam pipelines: what Beam looks up again for every step, it looks up once."""

import logging
import weakref
from collections.abc import Callable
from typing import Any

_LOG = logging.getLogger(__name__)
Arguments = tuple[list[str], list[Any]]
"""Names and default values of a function's positional arguments."""


def remember_lookups() -> None:
    """Make Beam keep what it finds out about methods and options; saves more than a second of a run.

    Beam looks for state and timers among all methods of a DoFn, some thirty, whenever it looks at a step: ten times.
    Nearly all of them are inherited, so it inspects the same few functions tens of thousands of times. For each step,
    it also parses the pipeline's options twice, to find out whether types are checked.
    """
    try:
        from apache_beam.options.pipeline_options import PipelineOptions
        from apache_beam.transforms import core

        if not hasattr(core.get_function_args_defaults, "known"):
            core.get_function_args_defaults = _remembering_arguments(core.get_function_args_defaults)
        if not hasattr(PipelineOptions.view_as, "known"):
            PipelineOptions.view_as = _remembering_views(PipelineOptions.view_as)
    except (ImportError, AttributeError) as error:  # not a public API; pipelines work without it, only slower
        _LOG.warning("cannot keep what Beam looks up (%s); pipelines start more slowly", error)


def _remembering_arguments(inspect: Callable[[Any], Arguments]) -> Callable[[Any], Arguments]:
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


def _remembering_views(view_as: Callable[[Any, type], Any]) -> Callable[[Any, type], Any]:
    """`view_as`, called once for each kind of options of a pipeline; all views of its options share their values."""
    known: weakref.WeakKeyDictionary[Any, dict[type, Any]] = weakref.WeakKeyDictionary()

    def view(options: Any, kind: type) -> Any:
        views = known.setdefault(options, {})
        if kind not in views:
            views[kind] = view_as(options, kind)
        return views[kind]

    view.known = known  # type: ignore[attr-defined]
    return view
