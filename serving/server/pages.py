"""The web pages: one file each, with the code and the look that they share, and what they may load."""

import html
from importlib.resources import files
from typing import Final

HEADERS: Final = {
    # A page loads nothing else, and injected content must not load.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src blob: data:",
    "X-Content-Type-Options": "nosniff",
}
_SHARED: Final = {"DRAWING": "drawing.js", "ACCESS": "access.js", "LOOK": "look.css"}


def page_text(package: str, name: str, **values: str) -> str:
    """The page `name` of a package, with the shared code and `values` in the place of `{{NAMES}}`."""
    shared = {key: _text("serving.server", file) for key, file in _SHARED.items()}
    page = _text(package, name)
    for key, value in {**shared, **values}.items():
        page = page.replace(f"{{{{{key}}}}}", value)
    return page


def tabs(*, try_it: str = "", review: str = "") -> str:
    """HTML that names a server's two pages; an address leads to the one that is not shown."""
    each = (("Try", try_it), ("Review", review))
    shown = [
        f'<a href="{html.escape(address)}">{name}</a>' if address else f'<b aria-current="page">{name}</b>'
        for name, address in each
    ]
    return f'<nav id="tabs">{" ".join(shown)}</nav>'


def _text(package: str, name: str) -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8")
