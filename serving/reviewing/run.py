"""Serves a review on this machine until it is stopped."""

import contextlib
import secrets
import socket
import threading
from collections.abc import Iterator
from functools import partial

import uvicorn
from starlette.applications import Starlette

from runtime.errors import UsageError
from serving.server.http_protocol import LimitedHeadersProtocol

HOST = "127.0.0.1"
HEADER_TIMEOUT_S = 20.0
_MAX_CONNECTIONS = 64


def new_token() -> str:
    """A secret for the address of a review."""
    return secrets.token_urlsafe(16)


@contextlib.contextmanager
def running(app: Starlette, port: int) -> Iterator[int]:
    """Serve `app` on the loopback interface during the block, and yield its port; 0 chooses a free one.

    Raises UsageError if the port is taken.
    """
    try:
        listener = socket.create_server((HOST, port))
    except OSError as error:
        raise UsageError(f"--port {port}: cannot listen on it: {error.strerror}; choose another") from None
    config = uvicorn.Config(
        app,
        http=partial(LimitedHeadersProtocol, header_timeout_s=HEADER_TIMEOUT_S),  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), name="review", daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
