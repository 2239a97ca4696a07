"""Fills in templates of HTML pages."""

from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any


def fill_in(
    package: str, template: str, filters: Mapping[str, Callable[..., Any]] | None = None, **context: Any
) -> str:
    """The page that the package's `template` makes of `context`.

    All text is escaped, since file names and labels are untrusted. An undefined name raises jinja2.UndefinedError.
    """
    import jinja2  # the command line, which imports this module, must start quickly

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(filters or {})
    source = resources.files(package).joinpath(template).read_text(encoding="utf-8")
    return environment.from_string(source).render(context)
