"""Compares the local server under load with direct calls of the same SavedModel in one process."""

import base64
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any

from PIL import Image

from bench.comparison import Comparison
from bench.configurations import buttons, seconds_of_run
from bench.timing import COMMAND_LINE, REPOSITORY, BenchmarkError, alternately, seconds_of_command
from schema.signatures import DEFAULT_MODEL_NAME, IMAGE_BYTES, SCORE_SIGNATURE

_AREA = "serving"
_GRPC_PORT, _REST_PORT = 18500, 18501
_LEAST_THROUGHPUT = {1: 0.6, 8: 0.9, 32: 0.9}
"""Clients -> requests/s as a multiple of direct calls/s."""
_MAX_TAIL = 5.0
"""The 99th percentile of the latency as a multiple of the median."""
_REQUESTS = {"tiny": 64, "small": 300, "full": 3000}
_MEGAPIXELS_4 = (2448, 1632)
_MAX_OF_LARGE = 2.0
_MAX_START = 2.0
_LOAD_AND_CALL = """
import sys
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
model.signatures[sys.argv[2]](**{sys.argv[3]: tf.constant([open(sys.argv[4], "rb").read()])})
"""


@dataclass(frozen=True)
class _Load:
    """A protocol and a number of clients."""

    protocol: str
    url: str
    request: Path
    clients: int


def compare(size: str, repetitions: int) -> list[Comparison]:
    """A small model of the sample images: throughput and tail latency of gRPC and REST with 1, 8 and 32 clients, REST
    with a large image, and the start of the server.
    """
    requests = _REQUESTS[size]
    with tempfile.TemporaryDirectory() as folder:
        base, image = _pushed_model(Path(folder)), first_image()
        loads = _loads(Path(folder), image)
        direct = _DirectCalls(base, image)
        with _served(base):
            rows = [[_measure(load, direct, requests) for load in loads] for _ in range(repetitions)]
            comparisons = [_of_large_image(Path(folder), base, max(4, requests // 50), repetitions)]
        comparisons.append(_start(base, Path(folder), image, repetitions))
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


def _of_large_image(folder: Path, base: Path, requests: int, repetitions: int) -> Comparison:
    """REST requests with a JPEG of 4 megapixels, against direct calls with the same bytes."""
    content = _large_jpeg()
    request = folder / "large.json"
    request.write_text(rest_body([content]), encoding="utf-8")
    load, direct = _Load("REST", _rest_url(), request, clients=1), _DirectCalls(base, content)
    served, called, _, _ = zip(*(_measure(load, direct, requests) for _ in range(repetitions)), strict=True)
    what = "REST, one client, a JPEG of 4 megapixels"
    return Comparison(_AREA, what, "direct calls in one process", served, called, _MAX_OF_LARGE, requests)


def _start(base: Path, folder: Path, image: bytes, repetitions: int) -> Comparison:
    """From the command to the answer that the server is ready, against a script that loads the model and calls it."""
    file = folder / "image"
    file.write_bytes(image)
    (version,) = base.iterdir()
    script = [sys.executable, "-c", _LOAD_AND_CALL, str(version), SCORE_SIGNATURE, IMAGE_BYTES, str(file)]

    def until_ready() -> float:
        started = time.perf_counter()
        with _served(base):
            return time.perf_counter() - started

    ours, reference = alternately(until_ready, lambda: seconds_of_command(script), repetitions)
    return Comparison(_AREA, "start until ready", "a script that loads and calls", ours, reference, _MAX_START)


def _large_jpeg() -> bytes:
    from sklearn.datasets import load_sample_images

    content = io.BytesIO()
    photograph = Image.fromarray(load_sample_images().images[0]).resize(_MEGAPIXELS_4)
    photograph.save(content, "JPEG", quality=90)
    return content.getvalue()


def _pushed_model(folder: Path) -> Path:
    """Run a short pipeline and return the push destination."""
    seconds_of_run(buttons(root=folder / "run", push_to=folder / "out"))
    return folder / "out"


def first_image() -> bytes:
    """One of the sample images."""
    return min((REPOSITORY / "sample_images" / "train" / "good").iterdir()).read_bytes()


def _loads(folder: Path, image: bytes) -> list[_Load]:
    rest, grpc = folder / "request.json", folder / "request.pb"
    rest.write_text(rest_body([image]), encoding="utf-8")
    grpc.write_bytes(predict_request([image]).SerializeToString())
    return [
        _Load(protocol, url, request, clients)
        for protocol, url, request in (
            ("gRPC", f"grpc://127.0.0.1:{_GRPC_PORT}", grpc),
            ("REST", _rest_url(), rest),
        )
        for clients in _LEAST_THROUGHPUT
    ]


def rest_body(images: Sequence[bytes]) -> str:
    """A request for their scores over REST."""
    return json.dumps({"instances": [{"b64": base64.b64encode(image).decode()} for image in images]})


def _rest_url() -> str:
    return f"http://127.0.0.1:{_REST_PORT}/v1/models/{DEFAULT_MODEL_NAME}:predict"


def predict_request(images: Sequence[bytes], *, model: str = DEFAULT_MODEL_NAME) -> Any:
    """The same over gRPC: a PredictRequest."""
    import tensorflow as tf
    from tensorflow_serving.apis import model_pb2, predict_pb2

    inputs = {IMAGE_BYTES: tf.make_tensor_proto(list(images))}
    return predict_pb2.PredictRequest(model_spec=model_pb2.ModelSpec(name=model), inputs=inputs)


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
