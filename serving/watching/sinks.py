"""Receivers of anomalies: a webhook, an MQTT topic, a command, or a folder."""

import base64
import contextlib
import http.client
import json
import re
import shlex
import shutil
import ssl
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import unquote, urlsplit

from runtime.errors import UsageError
from runtime.urls import without_secrets
from runtime.whole_files import write_whole
from serving.watching.state import Event

TIMEOUT_S: Final = 10.0
COMMAND_TIMEOUT_S: Final = 60.0
FORMS: Final = "webhook:URL, mqtt://HOST/TOPIC, folder:DIR, or a command"
_ENCODING: Final = "percent-encode / ? # @ in a user or password, such as / as %2F"
_REQUEST_TARGET: Final = re.compile("[!-~]*")
"""What Python's HTTP client can send; for others, its error would quote the whole target."""
_REFUSALS: Final = (400, 413, 415, 422)
"""HTTP statuses that say that this very event is never accepted; others may be temporary."""


class DeliveryError(Exception):
    """The receiver is not available; try again later."""


class RefusedError(Exception):
    """The receiver will never accept this event."""


class Sink(Protocol):
    """A receiver; `name` identifies it in the state file and in messages, and holds no password."""

    name: str

    def deliver(self, event: Event) -> None:
        """Raises DeliveryError or RefusedError."""

    def close(self) -> None:
        """Release its connection."""


def sink_of(text: str) -> Sink:
    """The receiver that --on-anomaly describes; raises UsageError."""
    if text.startswith("webhook:"):
        return Webhook(text.removeprefix("webhook:"))
    if text.startswith(("mqtt://", "mqtts://")):
        return Mqtt(text)
    if text.startswith("folder:"):
        return Folder(Path(text.removeprefix("folder:")).expanduser().absolute())
    return Command(text)


class Webhook:
    """POSTs each event as JSON; `overlay` is a data URL. A user and password in the URL become basic authentication."""

    def __init__(self, url: str) -> None:
        self.name = f"webhook:{without_secrets(url)}"
        malformed = UsageError(f"--on-anomaly {self.name}: must look like webhook:https://host:443/path; {_ENCODING}")
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:  # its message may quote the password
            raise malformed from None
        if parts.scheme not in ("http", "https") or not host or not _REQUEST_TARGET.fullmatch(parts.path + parts.query):
            raise malformed
        self._host, self._port, self._is_tls = host, port, parts.scheme == "https"
        self._target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
        self._headers = {"Content-Type": "application/json", **_basic(parts.username, parts.password)}

    def deliver(self, event: Event) -> None:
        body = _with_data_url(event)
        headers = {**self._headers, "Idempotency-Key": json.loads(event.event)["id"]}
        try:
            with contextlib.closing(self._connection()) as connection:
                connection.request("POST", self._target, body, headers)
                response = connection.getresponse()
                response.read(1024)
        except (OSError, http.client.HTTPException) as error:
            raise DeliveryError(f"{type(error).__name__}: {error}") from None
        if response.status in _REFUSALS:
            raise RefusedError(f"HTTP status {response.status} {response.reason}")
        if not 200 <= response.status < 300:
            raise DeliveryError(f"HTTP status {response.status} {response.reason}")

    def close(self) -> None:
        """Every event has a connection of its own."""

    def _connection(self) -> http.client.HTTPConnection:
        if self._is_tls:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT_S, context=context)
        return http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)


class Mqtt:
    """Publishes each event as JSON with QoS 1; `overlay` is a data URL. `mqtts://` encrypts."""

    def __init__(self, url: str) -> None:
        try:
            import paho.mqtt.client  # noqa: F401
        except ImportError:
            raise UsageError("--on-anomaly mqtt://… needs the extra `watch`: pip install paho-mqtt") from None
        self.name = without_secrets(url)
        malformed = UsageError(
            f"--on-anomaly {self.name}: must look like mqtt://host:1883/a/topic, without the wildcards + and #; "
            f"{_ENCODING}"
        )
        try:
            parts = urlsplit(url, allow_fragments=False)
            host, port = parts.hostname, parts.port
        except ValueError:  # its message may quote the password
            raise malformed from None
        self._topic = unquote(parts.path.removeprefix("/"))
        if not host or not self._topic or any(wildcard in self._topic for wildcard in "+#"):
            raise malformed
        self._is_tls = parts.scheme == "mqtts"
        self._host, self._port = host, port or (8883 if self._is_tls else 1883)
        self._user = None if parts.username is None else (unquote(parts.username), unquote(parts.password or ""))
        self._client: Any = None

    def deliver(self, event: Event) -> None:
        try:
            self._client = self._client or self._connected()
            sent = self._client.publish(self._topic, _with_data_url(event), qos=1)
            sent.wait_for_publish(TIMEOUT_S)
        except (OSError, ValueError, RuntimeError) as error:
            self.close()
            raise DeliveryError(f"{type(error).__name__}: {error}") from None
        if not sent.is_published():
            self.close()
            raise DeliveryError(f"no answer within {TIMEOUT_S:g} s")

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.disconnect()
            client.loop_stop()

    def _connected(self) -> Any:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        client = Client(CallbackAPIVersion.VERSION2)
        if self._user is not None:
            client.username_pw_set(*self._user)
        if self._is_tls:
            client.tls_set()
        client.connect_timeout = TIMEOUT_S
        client.connect(self._host, self._port)
        client.loop_start()
        return client


class Command:
    """Runs a command for each event, without a shell: JSON on its standard input; `overlay` is the path of a PNG file.

    Exit status 0 means delivered; anything else is tried again.
    """

    def __init__(self, text: str) -> None:
        try:
            self._words = shlex.split(text)
        except ValueError as error:
            raise UsageError(f"--on-anomaly: a command cannot be split into words: {error}") from None
        shown = [without_secrets(word) for word in self._words]
        self.name = text if shown == self._words else shlex.join(shown)
        if not self._words or shutil.which(self._words[0]) is None:
            raise UsageError(f"--on-anomaly {self.name}: no such program; give {FORMS}")

    def deliver(self, event: Event) -> None:
        with tempfile.TemporaryDirectory(prefix="autoencoder-") as folder:
            overlay = Path(folder, "overlay.png")
            try:
                if event.overlay:
                    overlay.write_bytes(event.overlay)
                ended = subprocess.run(
                    self._words,
                    input=_with_overlay(event, str(overlay) if event.overlay else None),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    timeout=COMMAND_TIMEOUT_S,
                    start_new_session=True,  # Ctrl-C drains the queue instead of ending the command
                )
            except subprocess.TimeoutExpired:
                raise DeliveryError(f"still running after {COMMAND_TIMEOUT_S:g} s") from None
            except OSError as error:
                raise DeliveryError(str(error)) from None
        if ended.returncode:
            said = ended.stderr.decode("utf-8", "replace").strip()[-200:]
            raise DeliveryError(f"exit status {ended.returncode}{f': {said}' if said else ''}")

    def close(self) -> None:
        """Every event has a process of its own."""


class Folder:
    """Writes NUMBER-NAME.json and .png for each event, atomically, the JSON file last."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = f"folder:{folder}"

    def deliver(self, event: Event) -> None:
        stem = f"{event.number:09d}-{Path(json.loads(event.event)['path']).stem[:60]}"
        overlay = f"{stem}.png" if event.overlay else None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if overlay:
                write_whole(self.folder / overlay, event.overlay)
            write_whole(self.folder / f"{stem}.json", _with_overlay(event, overlay))
        except OSError as error:
            raise DeliveryError(str(error)) from None

    def close(self) -> None:
        """There is nothing to release."""


def _with_overlay(event: Event, overlay: str | None) -> bytes:
    return json.dumps({**json.loads(event.event), "overlay": overlay}).encode()


def _with_data_url(event: Event) -> bytes:
    encoded = base64.b64encode(event.overlay).decode()
    return _with_overlay(event, f"data:image/png;base64,{encoded}" if encoded else None)


def _basic(user: str | None, password: str | None) -> dict[str, str]:
    if user is None:
        return {}
    login = base64.b64encode(f"{unquote(user)}:{unquote(password or '')}".encode()).decode()
    return {"Authorization": f"Basic {login}"}
