"""Serves a review on this machine until it is stopped, and opens it in the browser."""

import contextlib
import html
import socket
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from starlette.applications import Starlette

from runtime.errors import UsageError
from serving.server.http_server import config_of, running_http

HOST = "127.0.0.1"
HEADER_TIMEOUT_S = 20.0
_MAX_CONNECTIONS = 64
_LEADS_TO: Final = """<!doctype html>
<meta charset="utf-8">
<meta http-equiv="refresh" content="0; url={address}">
<a href="{address}">the review</a>
"""


@contextlib.contextmanager
def running(app: Starlette, port: int) -> Iterator[int]:
    """Serve `app` on the loopback interface during the block, and yield its port; 0 chooses a free one.

    Raises UsageError if the port is taken.
    """
    try:
        listener = socket.create_server((HOST, port))
    except OSError as error:
        raise UsageError(f"--port {port}: cannot listen on it: {error.strerror}; choose another") from None
    config = config_of(app, header_timeout_s=HEADER_TIMEOUT_S, max_connections=_MAX_CONNECTIONS, stop_grace_s=1)
    with running_http(config, listener, thread_name="review") as running_port:
        yield running_port


def open_in_browser(address: str, folder: Path) -> None:
    """Open `address` through a page in `folder`, which only its owner can read.

    Other users see a browser's arguments in the list of processes, so they must not contain the token.
    """
    page = folder / "review.html"
    page.write_text(_LEADS_TO.format(address=html.escape(address)), encoding="utf-8")
    webbrowser.open(page.as_uri())
