"""A real `autoencoder watch` in a process of its own, real receivers, and what they got."""

import contextlib
import csv
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ports import free_port
from repository import REPOSITORY
from waiting import wait_until

START_TIMEOUT_S = 120


class Watch:
    """The command, started; `state` is its state file."""

    def __init__(
        self,
        place: Path | str,
        model: Path,
        state: Path,
        *arguments: str,
        preexec: Callable[[], None] | None = None,
    ) -> None:
        state.parent.mkdir(parents=True, exist_ok=True)
        self.state = state
        self.log_file = state.parent.parent / f"{free_port()}.log"  # not on a disk that is full
        command = [sys.executable, "-m", "pipeline", "watch", str(place), "--model", str(model), "--state", str(state)]
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen([*command, *arguments], cwd=REPOSITORY, stderr=log, preexec_fn=preexec)

    def wait_started(self) -> "Watch":
        wait_until(lambda: bool(self.events("watching")) or self.process.poll() is not None, START_TIMEOUT_S)
        assert self.process.poll() is None, self.log_file.read_text()
        return self

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log's lines of this event."""
        complete = self.log_file.read_text().rpartition("\n")[0]
        lines = [line for line in complete.splitlines() if line.startswith("{")]
        return [event for event in map(json.loads, lines) if event["event"] == name]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def interrupt(self, timeout_s: float = 60) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout_s)


@contextlib.contextmanager
def watching(*arguments: Any, **more: Any) -> Iterator[Watch]:
    """A started watch, which is killed at the end unless it has ended."""
    watch = Watch(*arguments, **more)
    try:
        yield watch.wait_started()
    finally:
        watch.kill()


def recorded(state: Path) -> list[tuple[str, str]]:
    """Name and verdict of every image in the state file, in order."""
    if not state.exists():
        return []
    with contextlib.closing(sqlite3.connect(f"file:{state}?mode=ro", uri=True, timeout=20)) as connection:
        try:
            return connection.execute("SELECT name, verdict FROM images ORDER BY rowid").fetchall()
        except sqlite3.OperationalError:  # no table yet
            return []


def json_results(state: Path) -> list[dict[str, Any]]:
    files = sorted(state.parent.glob(f"{state.stem}-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def csv_results(state: Path) -> list[dict[str, str]]:
    rows = []
    for file in sorted(state.parent.glob(f"{state.stem}-*.csv")):
        with file.open(newline="") as stream:
            rows += list(csv.DictReader(stream))
    return rows


class Receiver:
    """An HTTP server that stores what is POSTed to it; it can be closed and opened again on the same port."""

    def __init__(self) -> None:
        self.port = free_port()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.status = 200
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/alarm"

    @property
    def ids(self) -> list[str]:
        return [body["id"] for body in self.bodies]

    def open(self) -> "Receiver":
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if receiver.status == 200:
                    receiver.bodies.append(body)
                    receiver.headers.append(dict(self.headers))
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        ThreadingHTTPServer.allow_reuse_address = True
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=[0.05], daemon=True).start()
        return self

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def mosquitto_program() -> str | None:
    """Debian installs it where only root's PATH leads."""
    return shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class MqttBroker:
    """mosquitto on a free port, with a subscriber that stores what arrives."""

    def __init__(self, folder: Path) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self.port, self.bodies = free_port(), []
        self._configuration = folder / "mosquitto.conf"
        self._configuration.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\n")
        self.start()
        self._subscriber = Client(CallbackAPIVersion.VERSION2, reconnect_on_failure=True)
        self._subscriber.reconnect_delay_set(1, 1)
        self._subscriber.on_connect = lambda client, *_: client.subscribe("plant/#", qos=1)
        self._subscriber.on_message = lambda _, __, message: self.bodies.append(json.loads(message.payload))
        self.is_subscribed = False
        self._subscriber.on_subscribe = lambda *_: setattr(self, "is_subscribed", True)
        self._subscriber.connect("127.0.0.1", self.port)
        self._subscriber.loop_start()
        wait_until(lambda: self.is_subscribed)

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}/plant/line%201"

    @property
    def ids(self) -> list[str]:
        return [body["id"] for body in self.bodies]

    def start(self) -> None:
        program = mosquitto_program()
        assert program is not None
        self.process = subprocess.Popen([program, "-c", str(self._configuration)], stderr=subprocess.DEVNULL)
        wait_until(lambda: is_open(self.port))

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()

    def restart(self) -> None:
        """Start again after `stop`, and wait for the subscriber."""
        self.is_subscribed = False
        self.start()
        wait_until(lambda: self.is_subscribed)

    def close(self) -> None:
        self._subscriber.disconnect()
        self._subscriber.loop_stop()
        self.stop()


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Writer(threading.Thread):
    """Writes images at a steady rate, in turn directly, slowly, and under another name that is changed at the end."""

    def __init__(self, folder: Path, normal: bytes, anomalous: bytes, *, rate: float, seconds: float) -> None:
        super().__init__(daemon=True)
        self._folder, self._normal, self._anomalous = folder, normal, anomalous
        self._rate, self._seconds = rate, seconds
        self.written: dict[str, str] = {}
        """Verdict to expect by name."""

    def run(self) -> None:
        began_s = time.monotonic()
        for number in range(round(self._rate * self._seconds)):
            time.sleep(max(0.0, began_s + number / self._rate - time.monotonic()))
            is_anomalous = number % 10 == 3
            name, data = f"{number:06d}.png", self._anomalous if is_anomalous else self._normal
            if number % 3 == 0:
                (self._folder / name).write_bytes(data)
            elif number % 3 == 1:
                with (self._folder / name).open("wb", buffering=0) as file:
                    file.write(data[:40])
                    time.sleep(0.005)
                    file.write(data[40:])
            else:
                (self._folder / f"{name}.partial").write_bytes(data)
                (self._folder / f"{name}.partial").rename(self._folder / name)
            self.written[name] = "anomaly" if is_anomalous else "normal"


@dataclass(frozen=True)
class Outcome:
    """What became of the images of a writer, and of the anomalies, by receiver."""

    written: int
    scored: int
    scored_twice: int
    lost: int
    wrong: int
    anomalies: int
    delivered: dict[str, int]
    delivered_again: dict[str, int]
    undelivered: dict[str, int]


def outcome_of(written: dict[str, str], state: Path, receivers: dict[str, list[dict[str, Any]]]) -> Outcome:
    """Compares what was written with the state file, both files of results, and the receivers' own records."""
    rows = recorded(state)
    names = [name for name, _ in rows]
    lines = [Path(row["path"]).name for row in json_results(state)]
    assert lines == names == [Path(row["path"]).name for row in csv_results(state)]
    anomalies = {name for name, verdict in rows if verdict == "anomaly"}
    got = {to: Counter(Path(body["path"]).name for body in bodies) for to, bodies in receivers.items()}
    verdicts = dict(rows)
    return Outcome(
        written=len(written),
        scored=len(set(names)),
        scored_twice=len(names) - len(set(names)),
        lost=len(set(written) - set(names)),
        wrong=sum(verdicts[name] != verdict for name, verdict in written.items() if name in verdicts),
        anomalies=len(anomalies),
        delivered={to: len(counts) for to, counts in got.items()},
        delivered_again={to: counts.total() - len(counts) for to, counts in got.items()},
        undelivered={to: len(anomalies - set(counts)) for to, counts in got.items()},
    )
