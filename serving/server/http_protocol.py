"""Uvicorn's HTTP protocol with limits on the time and size of a request's headers."""

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol  # httptools (in C) if it is installed, else h11

MAX_HEADER_BYTES = 64 * 1024


class LimitedHeadersProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """Closes a connection whose request headers do not arrive in time or are too large.

    Uvicorn itself waits forever, so idle or very slow connections would exhaust the server's connections. Of its two
    parsers only h11 limits the size of headers.
    """

    def __init__(self, *args: Any, header_timeout_s: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._header_timeout_s = header_timeout_s

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._header_bytes = 0
        self._header_timer = self.loop.call_later(self._header_timeout_s, self._close_if_waiting)

    def connection_lost(self, exc: Exception | None) -> None:
        self._header_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._header_bytes = self._header_bytes + len(data) if self._is_waiting() else 0
        if self._header_bytes > MAX_HEADER_BYTES:
            self.transport.close()

    def on_response_complete(self) -> None:
        self._header_timer.cancel()
        self._header_timer = self.loop.call_later(self._header_timeout_s, self._close_if_waiting)
        super().on_response_complete()

    def _is_waiting(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _close_if_waiting(self) -> None:
        if self._is_waiting():
            self.transport.close()
