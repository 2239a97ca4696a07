"""The server's Prometheus metrics, under TensorFlow Serving's names."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np
from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.server.load_counts import LoadCounts

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
LATENCY_BUCKETS_US: Final = tuple(10 * 1.8**exponent for exponent in range(24))

SCORE_BUCKETS: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 10.0)
MAX_COUNTED: Final = 1000.0
"""Larger multiples, and scores that are not finite, count as this one, so that the sum stays finite."""


class ScoreMetrics:
    """The metrics of whatever scores images; thread-safe."""

    def __init__(self, labels: Sequence[str] = ("version",)) -> None:
        self._registry = CollectorRegistry()
        self._scores = Histogram(
            "autoencoder_score_per_threshold",
            "Scores of images as multiples of the anomaly threshold: above 1 is an alarm.",
            labels,
            buckets=SCORE_BUCKETS,
            registry=self._registry,
        )

    def count_scores(self, per_threshold: np.ndarray[Any, Any], **labels: int | str) -> None:
        """Count the scores [n] of one answer, given as multiples of the threshold."""
        histogram = self._scores.labels(**labels)
        for value in np.where(np.isfinite(per_threshold), per_threshold, np.inf).clip(max=MAX_COUNTED).tolist():
            histogram.observe(value)

    def page(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self._registry)


class ModelCounts(Protocol):
    """What is known about the served models when the metrics are read."""

    def version_counts(self) -> Mapping[str, Mapping[str, int]]:
        """Model -> state -> versions in that state."""

    @property
    def loaded_bytes(self) -> int:
        """The estimated memory of the loaded versions."""

    def load_counts(self) -> Mapping[str, LoadCounts]:
        """What the loads of each model have cost so far."""


class _Models(Collector):
    def __init__(self, models: ModelCounts) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        """The gauges, with the values of this moment."""
        versions = GaugeMetricFamily(
            "autoencoder_model_versions",
            "Versions by state: AVAILABLE, START (loaded by the next request), END (could not be loaded).",
            labels=["model_name", "state"],
        )
        for name, counts in self._models.version_counts().items():
            for state, count in counts.items():
                versions.add_metric([name, state], count)
        yield versions
        yield GaugeMetricFamily(
            "autoencoder_loaded_bytes", "Estimated memory of the loaded versions.", self._models.loaded_bytes
        )
        yield from self._loads()

    def _loads(self) -> Iterator[Metric]:
        meanings = {
            "loads": "Versions that were loaded.",
            "evictions": "Versions that were unloaded to make room for other models.",
            "load_waits": "Requests that waited for their model to be loaded.",
            "load_wait_seconds": "Seconds that these requests waited.",
        }
        counters = [
            CounterMetricFamily(f"autoencoder_{name}", text, labels=["model_name"]) for name, text in meanings.items()
        ]
        for name, counts in self._models.load_counts().items():
            values = (counts.loads, counts.evictions, counts.waits, counts.waited_s)
            for counter, value in zip(counters, values, strict=True):
                counter.add_metric([name], value)
        yield from counters


class Metrics(ScoreMetrics):
    """The metrics of one server; thread-safe."""

    def __init__(self, models: ModelCounts) -> None:
        super().__init__(labels=("model_name", "version"))
        self._registry.register(_Models(models))
        # A gauge that only increases: this library's Counter would append `_total` to TensorFlow Serving's name.
        self._requests = Gauge(
            ":tensorflow:serving:request_count",
            "Answered requests by status.",
            ["model_name", "status"],
            registry=self._registry,
        )
        self._latency_us = Histogram(
            ":tensorflow:serving:request_latency",
            "Microseconds from a request's arrival to its answer.",
            ["model_name", "API", "entrypoint"],
            buckets=LATENCY_BUCKETS_US,
            registry=self._registry,
        )
        self.in_progress = Gauge(
            "autoencoder_requests_in_progress",
            "Predict requests that are being answered or wait for the model.",
            registry=self._registry,
        )

    def count_request(self, model_name: str, *, api: str, status: str, seconds: float) -> None:
        """Count a Predict request over `api` (REST or GRPC) that was answered with `status`."""
        self._requests.labels(model_name, status).inc()
        self._latency_us.labels(model_name, "predict", api).observe(seconds * 1e6)
