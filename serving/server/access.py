"""Who may use the server, and encryption: bearer tokens and a certificate, read again when their files change."""

import hmac
import logging
import secrets
import ssl
import threading
import time
from pathlib import Path
from typing import Final

from runtime.errors import UsageError
from serving.errors import ServingError, Status
from serving.server.logs import log_event

CHECK_INTERVAL_S: Final = 1.0
_SCHEME: Final = "bearer"
NOT_ACCEPTED: Final = "a valid bearer token is required: send the header `Authorization: Bearer TOKEN`"

Fingerprint = tuple[tuple[int, int, int], ...]


class Watched:
    """Whether files have changed since the last call; looks at most once per CHECK_INTERVAL_S."""

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._seen = self._look()
        self._looked = time.monotonic()
        self._lock = threading.Lock()

    def changed(self) -> bool:
        """Whether the files are there and differ from the last time that this returned true."""
        with self._lock:
            if time.monotonic() - self._looked < CHECK_INTERVAL_S:
                return False
            self._looked = time.monotonic()
            now = self._look()
            if now == self._seen or not now:
                return False
            self._seen = now
            return True

    def _look(self) -> Fingerprint:
        """Empty while a file is missing; a Kubernetes Secret replaces a link, which changes the inode."""
        try:
            found = [path.stat() for path in self._paths]
        except OSError:
            return ()
        return tuple((status.st_ino, status.st_mtime_ns, status.st_size) for status in found)


def new_token() -> str:
    """A secret for the address of a page."""
    return secrets.token_urlsafe(16)


class Tokens:
    """The accepted bearer tokens: the lines of a file, so that an old and a new token can be valid together."""

    def __init__(self, path: Path) -> None:
        """Raises UsageError if the file holds no token."""
        self._path = path
        self._watched = Watched(path)
        self._tokens = _read_tokens(path)

    def check(self, authorization: str | None) -> None:
        """Raise ServingError (UNAUTHENTICATED) unless the header holds an accepted token, in constant time."""
        if self._watched.changed():
            self._reload()
        scheme, _, given = (authorization or "").partition(" ")
        presented = given.strip().encode(errors="replace")
        # Compare with every token, without an early end.
        matches = [hmac.compare_digest(presented, token) for token in self._tokens]
        if scheme.lower() != _SCHEME or not any(matches):
            raise ServingError(Status.UNAUTHENTICATED, NOT_ACCEPTED)

    def _reload(self) -> None:
        try:
            self._tokens = _read_tokens(self._path)
        except UsageError as error:
            log_event("tokens_not_reloaded", level=logging.ERROR, reason=str(error))
        else:
            log_event("tokens_reloaded", tokens=len(self._tokens))


def _read_tokens(path: Path) -> list[bytes]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"--token-file {path}: cannot be read: {reason}") from None
    tokens = [line.strip().encode() for line in lines if line.strip()]
    if not tokens:
        raise UsageError(f"--token-file {path}: is empty; write one token per line, e.g. from: openssl rand -hex 32")
    return tokens


class Certificate:
    """A certificate with its key, both in PEM files."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Raises UsageError if the files cannot be used."""
        self.certificate, self.key = certificate, key
        self._watched = Watched(certificate, key)
        self._pair, self._context = self._read()

    def pair(self) -> tuple[bytes, bytes]:
        """(key, certificate chain), the newest that could be used."""
        self._refresh()
        return self._pair

    def answer_with_newest(self, context: ssl.SSLContext) -> None:
        """Let each new connection of a listening context use the newest certificate that could be used.

        A context that loads another certificate has none for a moment, in which connections would fail. So each
        certificate has a context of its own, to which the connection changes when the client has said hello.
        """

        def change(connection: ssl.SSLObject, server_name: str | None, context: ssl.SSLContext) -> None:
            self._refresh()
            connection.context = self._context

        context.sni_callback = change  # also called for clients that name no server

    def _refresh(self) -> None:
        if self._watched.changed():
            try:
                self._pair, self._context = self._read()
            except UsageError as error:
                log_event("certificate_not_reloaded", level=logging.ERROR, reason=str(error))
            else:
                log_event("certificate_reloaded", certificate=str(self.certificate))

    def _read(self) -> tuple[tuple[bytes, bytes], ssl.SSLContext]:
        try:
            while True:
                pair = self.key.read_bytes(), self.certificate.read_bytes()
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(self.certificate, self.key, password=_no_password)
                if pair == (self.key.read_bytes(), self.certificate.read_bytes()):  # else they were replaced meanwhile
                    return pair, context
        except (OSError, ValueError) as error:  # SSLError is an OSError
            raise UsageError(
                f"--tls-cert {self.certificate}, --tls-key {self.key}: cannot be used: {error}; both must be PEM "
                "files, and the key must be the certificate's, without a password"
            ) from None


def _no_password() -> str:
    raise ValueError("the key has a password")
