"""Uvicorn's HTTP protocol with limits on how long, and how long-winded, a client's headers may be."""

import asyncio

from uvicorn.protocols.http.auto import AutoHTTPProtocol  # the parser in C, httptools, where it is installed; else h11

HEADER_TIMEOUT_S = 20.0
MAX_HEADER_BYTES = 64 * 1024


class ImpatientProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """Closes a connection that has not sent a request's headers in time, or sends too many.

    Uvicorn itself waits for ever: connections that say nothing, or a byte a minute, would use up ours. Of its
    two parsers only h11 limits the headers.
    """

    header_timeout_s = HEADER_TIMEOUT_S

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._header_bytes = 0
        self._header_timer = self.loop.call_later(self.header_timeout_s, self._close_if_waiting)

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
        self._header_timer = self.loop.call_later(self.header_timeout_s, self._close_if_waiting)
        super().on_response_complete()

    def _is_waiting(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _close_if_waiting(self) -> None:
        if self._is_waiting():
            self.transport.close()
