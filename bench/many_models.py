"""Compares one server of a hundred models with the same server of one: memory, tail latency, cold models."""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

from bench.comparison import Comparison
from bench.mixed_load import OK, rows_of
from bench.serving import first_image, predict_request, rest_body
from bench.small_models import train_on_samples
from bench.timing import COMMAND_LINE, REPOSITORY, BenchmarkError, in_new_process
from schema.artifacts import SAVED_MODEL_FILE
from serving.server.rest import METRICS_PATH

_AREA: Final = "many models"
_MODELS: Final = {"tiny": 4, "small": 20, "full": 100}
_SECONDS: Final = {"tiny": 3, "small": 20, "full": 60}
_COLD_REQUESTS: Final = {"tiny": 12, "small": 60, "full": 184}
_SIDE_PX: Final = 48
_CLIENTS: Final = 8
_LARGE_SHARE, _LARGE_BATCH = 0.1, 8
_GRPC_PORT, _REST_PORT = 18510, 18511
_DEADLINE_S: Final = 30.0
"""The default of --rest_api_timeout_in_ms; gRPC's clients set the same."""
_PROGRAM_MB: Final = 700.0
"""Memory of a server without models, as docs/plant.md states it."""
_BROKEN: Final = "broken"
_MAX_OF_ONE_MODEL, _MAX_OF_ESTIMATE, _MAX_OF_DEADLINE = 1.5, 1.0, 1.0
_START_TIMEOUT_S: Final = 3600.0

_Row = tuple[str, float, float, str]


def compare(size: str, repetitions: int) -> list[Comparison]:
    """A mixed load on many models, one of them broken and one pushed meanwhile; then a rush on models not loaded yet.

    Repetitions are not needed: the load consists of thousands of requests.
    """
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        version = in_new_process(train_on_samples, "deep", _SIDE_PX, folder / "version")
        names = [f"model-{number:03d}" for number in range(_MODELS[size])]
        plant = _Plant(folder, version, names)
        single = _Plant(folder / "single", version, names[:1])
        many, memory = _under_load(plant, size)
        one, _ = _under_load(single, size)
        cold = _rush(plant, size)
    few = {"models": len(names), "memory_mb": memory[0], "estimated_mb": memory[1]}
    details = tuple(
        {**few, "load": load, **_told(rows)} for load, rows in (("many", many), ("one", one), ("cold", cold))
    )
    what = f"{len(names)} models"
    return [
        Comparison(_AREA, f"{what}: 99th percentile", "of one model", (_tail(many),), (_tail(one),), _MAX_OF_ONE_MODEL,
                   details=details),
        Comparison(_AREA, f"{what}: memory", "the estimate", (memory[0],), (memory[1],), _MAX_OF_ESTIMATE, unit="MB"),
        Comparison(_AREA, "a rush on models in room for a third: slowest answer", "the deadline",
                   (max(row[2] for row in cold),), (_DEADLINE_S,), _MAX_OF_DEADLINE),
    ]  # fmt: skip


class _Plant:
    """Copies of one version under several names, a broken model beside them, and their configuration file."""

    def __init__(self, folder: Path, version: Path, names: list[str]) -> None:
        self.folder, self.names, self.version = folder, names, version
        self.config = folder / "models.config"
        bases = [folder / "models" / name for name in (*names, _BROKEN)]
        for base in bases:
            shutil.copytree(version, base / "1")
        (bases[-1] / "1" / SAVED_MODEL_FILE).write_bytes(b"no model")
        entries = (
            f'config {{ name: "{base.name}" base_path: "{base}" model_platform: "tensorflow" }}' for base in bases
        )
        self.config.write_text(f"model_config_list {{ {' '.join(entries)} }}", encoding="utf-8")

    def push(self, name: str) -> None:
        """Push the same model as version 2."""
        partial = self.folder / "models" / f"{name}.partial"
        shutil.copytree(self.version, partial)
        partial.rename(self.folder / "models" / name / "2")

    def plan(self, names: list[str], weights: list[float], *, seconds: float, at_most: int) -> Path:
        """The file that `bench.mixed_load` reads; a tenth of the requests, with eight images, are large."""
        image = first_image()
        requests = []
        for name, weight in zip(names, weights, strict=True):
            for images, share in ((1, 1.0 - _LARGE_SHARE), (_LARGE_BATCH, _LARGE_SHARE)):
                rest, grpc = (self.folder / f"{name}-{images}.{kind}" for kind in ("json", "pb"))
                rest.write_text(rest_body([image] * images), encoding="utf-8")
                grpc.write_bytes(predict_request([image] * images, model=name).SerializeToString())
                bodies = {"rest": str(rest), "grpc": str(grpc), "grpc_timeout_s": _DEADLINE_S}
                requests.append({"model": name, "weight": weight * share, **bodies})
        file = self.folder / "plan.json"
        addresses = {"rest": f"127.0.0.1:{_REST_PORT}", "grpc": f"127.0.0.1:{_GRPC_PORT}"}
        plan = {**addresses, "clients": _CLIENTS, "requests": requests, "seconds": seconds, "at_most": at_most}
        file.write_text(json.dumps(plan), encoding="utf-8")
        return file


def _under_load(plant: _Plant, size: str) -> tuple[list[_Row], tuple[float, float]]:
    """(requests, (memory of the server, its estimate) in MB); the most used model gets a new version meanwhile."""
    seconds = _SECONDS[size]
    with _served(plant) as server:
        _wait_until_tried(plant)
        zipf = [1.0 / (rank + 1) for rank in range(len(plant.names) + 1)]  # the broken one is the least used
        with _load(plant.plan([*plant.names, _BROKEN], zipf, seconds=seconds, at_most=10**9)) as load:
            time.sleep(seconds / 2)
            plant.push(plant.names[0])
        _wait_for(lambda: _states(plant.names[0]).get("2") == "AVAILABLE", "the new version is not served")
        broken = _states(_BROKEN)
        memory = _resident_mb(server.pid), _PROGRAM_MB + _metric("autoencoder_loaded_bytes") / 1e6
    if broken != {"1": "END"}:
        raise BenchmarkError(f"the broken model has the states {broken}, not END")
    rows = list(rows_of(load()))
    failed = Counter(status for model, _, _, status in rows if model != _BROKEN and status != OK)
    if failed or any(status == OK for model, _, _, status in rows if model == _BROKEN):
        raise BenchmarkError(f"{sum(failed.values())} of {len(rows)} requests failed: {dict(failed)}")
    return [row for row in rows if row[0] != _BROKEN], memory


def _rush(plant: _Plant, size: str) -> list[_Row]:
    """Requests that all clients send at once to models of which a third has room."""
    most_mb = max(1, round(_estimated_mb(plant) / 3))
    with _served(plant, "--max-loaded-mb", str(most_mb)):
        _wait_until_tried(plant)
        names = [name for name in plant.names if "START" in _states(name).values()][: max(1, len(plant.names) // 3)]
        plan = plant.plan(names, [1.0] * len(names), seconds=_START_TIMEOUT_S, at_most=_COLD_REQUESTS[size])
        with _load(plan) as load:
            pass
    return list(rows_of(load()))


@contextmanager
def _load(plan: Path) -> Iterator[Any]:
    """Send the planned requests during and after the block, until they have ended; yields a function of their rows."""
    command = [sys.executable, "-m", "bench.mixed_load", str(plan)]
    load = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    found: dict[str, str] = {}
    try:
        yield lambda: found["rows"]
        found["rows"], errors = load.communicate()
    finally:
        load.kill()
    if load.returncode != 0:
        raise BenchmarkError(f"{' '.join(command)} exited with {load.returncode}: {errors[-2000:]}")


@contextmanager
def _served(plant: _Plant, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run this checkout's `autoencoder serve` for the plant in its own process."""
    ports = ["--port", str(_GRPC_PORT), "--rest_api_port", str(_REST_PORT)]
    command = [*COMMAND_LINE, "serve", "--model_config_file", str(plant.config), "--own", *ports, *options]
    server = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    try:
        yield server
    finally:
        server.terminate()
        server.wait()


def _wait_until_tried(plant: _Plant) -> None:
    """Until every model is loaded, broken, or without room."""
    _wait_for(lambda: _get("/readyz") is not None, "the server is not ready")


def _wait_for(is_done: Any, what: str) -> None:
    until_s = time.monotonic() + _START_TIMEOUT_S
    while not is_done():
        if time.monotonic() > until_s:
            raise BenchmarkError(f"{what} after {_START_TIMEOUT_S:.0f} s")
        time.sleep(0.2)


def _get(path: str) -> str | None:
    """The body of a successful answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{_REST_PORT}{path}", timeout=10) as answer:
            text: str = answer.read().decode()
            return text
    except OSError:
        return None


def _states(name: str) -> dict[str, str]:
    """Version -> state."""
    document = json.loads(_get(f"/v1/models/{name}") or "{}")
    return {row["version"]: row["state"] for row in document.get("model_version_status", [])}


def _metric(name: str) -> float:
    found = re.search(rf"^{name} ([\d.e+]+)$", _get(METRICS_PATH) or "", re.MULTILINE)
    if found is None:
        raise BenchmarkError(f"the server has no metric {name}")
    return float(found[1])


def _estimated_mb(plant: _Plant) -> float:
    from serving.server.loaded_memory import estimated_bytes

    return len(plant.names) * estimated_bytes(plant.version) / 1e6


def _resident_mb(pid: int) -> float:
    [kilobytes] = re.findall(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(kilobytes) * 1024 / 1e6


def _tail(rows: list[_Row]) -> float:
    """The 99th percentile of the answers' seconds."""
    return quantiles([seconds for _, _, seconds, _ in rows], n=100)[98]


def _told(rows: list[_Row]) -> dict[str, Any]:
    seconds = [row[2] for row in rows]
    return {
        "requests": len(rows),
        "failed": dict(Counter(row[3] for row in rows if row[3] != OK)),
        "requests_per_second": len(rows) / max(row[1] + row[2] for row in rows),
        "median_ms": 1000 * median(seconds),
        "99th_percentile_ms": 1000 * _tail(rows),
        "slowest_s": max(seconds),
    }
