"""Uvicorn's HTTP protocol with a limit on how long a client may take to send its headers."""

import asyncio
from typing import cast

from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_TIMEOUT_S = 20.0


class ImpatientH11Protocol(H11Protocol):
    """Closes a connection that has not sent a request's headers in time.

    Uvicorn itself waits for ever: connections that say nothing, or a byte a minute, would use up ours.
    """

    header_timeout_s = HEADER_TIMEOUT_S

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._header_timer = self.loop.call_later(self.header_timeout_s, self._close_if_waiting)

    def connection_lost(self, exc: Exception | None) -> None:
        self._header_timer.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._header_timer.cancel()
        self._header_timer = self.loop.call_later(self.header_timeout_s, self._close_if_waiting)
        super().on_response_complete()

    def _close_if_waiting(self) -> None:
        cycle = self.cycle
        # Uvicorn's annotation says never None, its constructor says otherwise.
        if cast("object | None", cycle) is None or cycle.response_complete:
            self.transport.close()
