"""The web pages: one file each, with the drawing code and the look that they share, and what they may load."""

from importlib.resources import files
from typing import Final

HEADERS: Final = {
    # A page loads nothing else, and injected content must not load.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src blob: data:",
    "X-Content-Type-Options": "nosniff",
}


def page_text(package: str, name: str, **values: str) -> str:
    """The page `name` of a package, with the shared code and `values` in the place of `{{NAMES}}`."""
    shared = {"DRAWING": _text("serving.server", "drawing.js"), "LOOK": _text("serving.server", "look.css")}
    page = _text(package, name)
    for key, value in {**shared, **values}.items():
        page = page.replace(f"{{{{{key}}}}}", value)
    return page


def _text(package: str, name: str) -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8")
