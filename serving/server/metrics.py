"""What the server counts, as Prometheus text, under TensorFlow Serving's metric names."""

from typing import Any, Final

import numpy as np
from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
LATENCY_BUCKETS_US: Final = tuple(10 * 1.8**exponent for exponent in range(24))

SCORE_BUCKETS: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 10.0)


class Metrics:
    """The counters of one server; safe for many threads."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        # A gauge that only grows: a counter of this library would add `_total` to TensorFlow Serving's name.
        self._requests = Gauge(
            ":tensorflow:serving:request_count",
            "Requests answered, by status.",
            ["model_name", "status"],
            registry=self._registry,
        )
        self._latency_us = Histogram(
            ":tensorflow:serving:request_latency",
            "Microseconds from the request's arrival to its answer.",
            ["model_name", "API", "entrypoint"],
            buckets=LATENCY_BUCKETS_US,
            registry=self._registry,
        )

        self._scores = Histogram(
            "autoencoder_score_per_threshold",
            "Scores of images as multiples of the anomaly threshold: above 1 is an alarm.",
            ["version"],
            buckets=SCORE_BUCKETS,
            registry=self._registry,
        )

    def count_scores(self, version: int, per_threshold: np.ndarray[Any, Any]) -> None:
        """Count the images of one answer by their scores as multiples of the threshold."""
        histogram = self._scores.labels(str(version))
        for value in per_threshold.tolist():
            histogram.observe(value)

    def count_request(self, model_name: str, *, api: str, status: str, seconds: float) -> None:
        """Count one Predict request that came by `api` (REST or GRPC) and was answered with `status`."""
        self._requests.labels(model_name, status).inc()
        self._latency_us.labels(model_name, "predict", api).observe(seconds * 1e6)

    def page(self) -> bytes:
        """Everything counted so far."""
        return generate_latest(self._registry)
