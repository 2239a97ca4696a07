"""Prometheus metrics of a watch."""

from prometheus_client import Counter, Gauge, Histogram, start_http_server

from runtime.errors import UserError
from serving.server.metrics import ScoreMetrics

_DELAY_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)


class WatchMetrics(ScoreMetrics):
    """The metrics of one watch; thread-safe."""

    def __init__(self) -> None:
        super().__init__()
        self._images = Counter("autoencoder_watch_images", "Images by verdict.", ["verdict"], registry=self._registry)
        self._events = Counter(
            "autoencoder_watch_events",
            "Events that left the queue: delivered, dropped because it was full, or refused by the receiver.",
            ["sink", "outcome"],
            registry=self._registry,
        )
        self._failures = Counter(
            "autoencoder_watch_delivery_failures", "Failed deliveries.", ["sink"], registry=self._registry
        )
        self.images_waiting = Gauge(
            "autoencoder_watch_images_waiting", "Images that are not scored yet.", registry=self._registry
        )
        self.events_waiting = Gauge(
            "autoencoder_watch_events_waiting", "Events in the queue.", ["sink"], registry=self._registry
        )
        self.is_stalled = Gauge(
            "autoencoder_watch_stalled",
            "1 while results cannot be written or the place cannot be listed.",
            registry=self._registry,
        )
        self._delay_s = Histogram(
            "autoencoder_watch_delay_seconds",
            "Seconds from an image's last change to its recorded result.",
            buckets=_DELAY_BUCKETS_S,
            registry=self._registry,
        )

    def count_image(self, verdict: str, delay_s: float) -> None:
        """Count a recorded result."""
        self._images.labels(verdict).inc()
        self._delay_s.observe(max(0.0, delay_s))

    def count_event(self, sink: str, outcome: str, number: int = 1) -> None:
        """Count events that left the queue."""
        self._events.labels(sink, outcome).inc(number)

    def count_failure(self, sink: str) -> None:
        """Count a failed delivery."""
        self._failures.labels(sink).inc()

    def serve(self, host: str, port: int) -> None:
        """Answer HTTP requests until the process ends; raises UserError if the port is taken."""
        try:
            start_http_server(port, host, registry=self._registry)
        except OSError as error:
            message = f"cannot listen on {host}:{port} for metrics: {error.strerror}; choose another --metrics-port"
            raise UserError(message) from None
