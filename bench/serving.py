"""Compares the local server under load with direct calls of the same SavedModel in one process."""

import base64
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any

from bench.comparison import Comparison
from bench.timing import COMMAND_LINE, REPOSITORY, BenchmarkError, seconds_of_command
from schema.signatures import DEFAULT_MODEL_NAME, IMAGE_BYTES, SCORE_SIGNATURE

_AREA = "serving"
_CONFIGURATION = "configs/folder.yaml"
_SMALL_MODEL = {"preset": "deep", "hidden_units": [512, 128], "latent_dim": 16, "loss": "mse", "epochs": 30}
"""A fast model, so that its own time does not hide the server's."""
_GRPC_PORT, _REST_PORT = 18500, 18501
_LEAST_THROUGHPUT = {1: 0.6, 8: 0.9, 32: 0.9}
"""Clients -> requests/s as a multiple of direct calls/s."""
_MAX_TAIL = 5.0
"""The 99th percentile of the latency as a multiple of the median."""
_REQUESTS = {"small": 300, "full": 3000}


@dataclass(frozen=True)
class _Load:
    """A protocol and a number of clients."""

    protocol: str
    url: str
    request: Path
    clients: int


def compare(size: str, repetitions: int) -> list[Comparison]:
    """Throughput and tail latency of gRPC and REST with 1, 8 and 32 clients, for a small model of the sample images."""
    requests = _REQUESTS[size]
    with tempfile.TemporaryDirectory() as folder:
        base, image = _pushed_model(Path(folder)), _first_image()
        loads = _loads(Path(folder), image)
        direct = _DirectCalls(base, image)
        with _served(base):
            rows = [[_measure(load, direct, requests) for load in loads] for _ in range(repetitions)]
    comparisons = []
    for load, results in zip(loads, zip(*rows, strict=True), strict=True):
        served, called, tail, median = zip(*results, strict=True)
        what = f"{load.protocol}, {load.clients} {'client' if load.clients == 1 else 'clients'}"
        most = 1 / _LEAST_THROUGHPUT[load.clients]
        comparisons += [
            Comparison(_AREA, what, "direct calls in one process", served, called, most, requests),
            Comparison(_AREA, f"{what}: 99th percentile", "its median", tail, median, _MAX_TAIL),
        ]
    return comparisons


def _measure(load: _Load, direct: "_DirectCalls", requests: int) -> tuple[float, float, float, float]:
    """Seconds of (all requests, as many direct calls, the 99th percentile of a request, the median of a request)."""
    command = [sys.executable, "-m", "bench.load", load.url, str(load.clients), str(requests), str(load.request)]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if ran.returncode != 0:
        raise BenchmarkError(f"{' '.join(command)} exited with {ran.returncode}: {ran.stderr[-2000:]}")
    result = json.loads(ran.stdout)
    percentiles = quantiles(result["latencies_s"], n=100)
    return result["seconds"], direct.seconds(requests), percentiles[98], percentiles[49]


class _DirectCalls:
    """Calls the scoring signature for one image at a time, like a program that loads the model itself."""

    def __init__(self, base: Path, image: bytes) -> None:
        import tensorflow as tf

        (version,) = base.iterdir()
        self._loaded = tf.saved_model.load(str(version))
        self._call = self._loaded.signatures[SCORE_SIGNATURE]
        self._image = image
        self._constant = tf.constant
        self.seconds(50)

    def seconds(self, calls: int) -> float:
        started = time.perf_counter()
        for _ in range(calls):
            outputs = self._call(**{IMAGE_BYTES: self._constant([self._image])})
            {name: tensor.numpy() for name, tensor in outputs.items()}
        return time.perf_counter() - started


def _pushed_model(folder: Path) -> Path:
    """Run a short pipeline and return the push destination; a loose bound, since the model's quality is irrelevant."""
    settings = {
        "root": folder,
        "trainer": json.dumps(_SMALL_MODEL),
        "evaluation.max_pca_ratio": 2,
        "push.destination": folder / "out",
    }
    overrides = [f"--set={key}={value}" for key, value in settings.items()]
    seconds_of_command([*COMMAND_LINE, "run", _CONFIGURATION, *overrides])
    return folder / "out"


def _first_image() -> bytes:
    return min((REPOSITORY / "sample_images" / "train" / "good").iterdir()).read_bytes()


def _loads(folder: Path, image: bytes) -> list[_Load]:
    rest, grpc = folder / "request.json", folder / "request.pb"
    rest.write_text(json.dumps({"instances": [{"b64": base64.b64encode(image).decode()}]}))
    grpc.write_bytes(_predict_request(image).SerializeToString())
    path = f"/v1/models/{DEFAULT_MODEL_NAME}:predict"
    return [
        _Load(protocol, url, request, clients)
        for protocol, url, request in (
            ("gRPC", f"grpc://127.0.0.1:{_GRPC_PORT}", grpc),
            ("REST", f"http://127.0.0.1:{_REST_PORT}{path}", rest),
        )
        for clients in _LEAST_THROUGHPUT
    ]


def _predict_request(image: bytes) -> Any:
    import tensorflow as tf
    from tensorflow_serving.apis import model_pb2, predict_pb2

    inputs = {IMAGE_BYTES: tf.make_tensor_proto([image])}
    return predict_pb2.PredictRequest(model_spec=model_pb2.ModelSpec(name=DEFAULT_MODEL_NAME), inputs=inputs)


@contextmanager
def _served(base: Path) -> Iterator[None]:
    """Run this checkout's `autoencoder serve` in its own process and wait until it is ready."""
    from serving.client import wait_until_ready

    ports = ["--port", str(_GRPC_PORT), "--rest_api_port", str(_REST_PORT)]
    server = subprocess.Popen(
        [*COMMAND_LINE, "serve", str(base), "--own", *ports], cwd=REPOSITORY, stderr=subprocess.DEVNULL
    )
    try:
        wait_until_ready(f"http://127.0.0.1:{_REST_PORT}", timeout_s=120)
        yield
    finally:
        server.terminate()
        server.wait()
