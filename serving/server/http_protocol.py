"""Uvicorn's HTTP protocol with limits on the time and size of a request's headers, and without upgrades."""

import asyncio
import re
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEADER_BYTES: Final = 64 * 1024
_END_OF_HEAD: Final = re.compile(rb"\r?\n\r?\n")
_METHOD: Final = re.compile(rb"[A-Za-z]{1,20}( |\Z)")
_UPGRADE: Final = re.compile(rb"(?<=\n)upgrade[ \t]*:[^\n]*\n", re.IGNORECASE)
_TOO_LARGE: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class LimitedHeadersProtocol(HttpToolsProtocol):
    """Closes a connection whose request headers do not arrive in time or are too large, and ignores `Upgrade`.

    Uvicorn itself waits forever, so idle or slow connections would exhaust the server's connections, and its parser
    does not limit the size of headers. A client may offer HTTP/2 with `Upgrade: h2c` (RFC 7540, section 3.2), and a
    server that does not support it answers by HTTP/1.1; the parser would drop the body of such a request.
    """

    def __init__(self, *args: Any, header_timeout_s: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._header_timeout_s = header_timeout_s

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head = b""
        self._is_between_requests = True
        self._header_bytes = 0
        self._header_timer = self.loop.call_later(self._header_timeout_s, self._close_if_waiting)

    def connection_lost(self, exc: Exception | None) -> None:
        self._header_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._is_between_requests:
            super().data_received(data)
            return
        self._head = (self._head + data).lstrip(b"\r\n")
        end = _END_OF_HEAD.search(self._head)
        if (end.end() if end else len(self._head)) > MAX_HEADER_BYTES:
            self._refuse_head()
        elif end:
            head, body, self._head = self._head[: end.end()], self._head[end.end() :], b""
            super().data_received(_UPGRADE.sub(b"", head) + body)
        elif self._head and not _METHOD.match(self._head):
            data, self._head = self._head, b""
            super().data_received(data)  # not HTTP: the parser refuses it immediately

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_between_requests = False
        self._header_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        # Also of requests that follow in the same packet, whose head does not pass through `_head`.
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MAX_HEADER_BYTES:
            raise ValueError("the request's headers are too large")  # answered with 400
        super().on_header(name, value)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._is_between_requests = True

    def on_response_complete(self) -> None:
        self._header_timer.cancel()
        self._header_timer = self.loop.call_later(self._header_timeout_s, self._close_if_waiting)
        super().on_response_complete()

    def _refuse_head(self) -> None:
        if self._is_waiting():
            self.transport.write(_TOO_LARGE)
        self.transport.close()

    def _is_waiting(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _close_if_waiting(self) -> None:
        if self._is_waiting():
            self.transport.close()
