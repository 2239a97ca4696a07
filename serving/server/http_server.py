"""Runs an ASGI application in a thread of this process, with limits on connections and headers."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import uvicorn

from serving.server.http_protocol import LimitedHeadersProtocol


def config_of(
    app: Any, *, header_timeout_s: float, max_connections: int, stop_grace_s: int, **tls: Any
) -> uvicorn.Config:
    """Uvicorn's configuration without its own logs; `tls`: its `ssl_certfile` and `ssl_keyfile`."""
    return uvicorn.Config(
        app,
        http=partial(LimitedHeadersProtocol, header_timeout_s=header_timeout_s),  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        limit_concurrency=max_connections,
        timeout_graceful_shutdown=stop_grace_s,
        **tls,
    )


@contextlib.contextmanager
def running_http(config: uvicorn.Config, listener: socket.socket, *, thread_name: str) -> Iterator[int]:
    """Serve on `listener` during the block, and yield its port; then drain, and close it."""
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), name=thread_name, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
