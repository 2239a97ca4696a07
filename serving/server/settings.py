"""What the local server may be told: one frozen value, checked at birth."""

from dataclasses import dataclass
from pathlib import Path

from images.formats import MAX_PIXELS
from schema.signatures import DEFAULT_GRPC_PORT, DEFAULT_MODEL_NAME, DEFAULT_REST_PORT

MIB = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Where to listen, what to serve, and how much to accept.

    `record_scores` is a folder for a file per version that counts the scores answered, for `autoencoder drift`.
    A port of 0 takes any free one, None leaves that protocol off. The pixel limits are counted from the
    images' headers, before anything is decoded: a small file may claim to be a very large image. Bodies are
    limited one by one, and over REST all together (`max_pending_bytes`).
    """

    model_base_path: Path
    model_name: str = DEFAULT_MODEL_NAME
    host: str = "127.0.0.1"
    grpc_port: int | None = DEFAULT_GRPC_PORT
    rest_port: int | None = DEFAULT_REST_PORT
    poll_interval_s: float = 1.0
    request_timeout_s: float = 30.0
    stop_grace_s: float = 5.0
    enable_batching: bool = True
    max_batch_size: int = 64
    enable_model_warmup: bool = True
    record_scores: Path | None = None
    max_body_bytes: int = 64 * MIB
    max_image_pixels: int = MAX_PIXELS
    max_request_pixels: int = 512_000_000
    max_pending_bytes: int = 512 * MIB
    max_waiting_requests: int = 256
    max_connections: int = 2048
    worker_threads: int = 32

    def __post_init__(self) -> None:
        if not self.model_name or any(c in self.model_name for c in "/:"):
            raise ValueError(f"model_name {self.model_name!r}: must not be empty or hold '/' or ':'")
        for field in ("grpc_port", "rest_port"):
            port = getattr(self, field)
            if port is not None and not 0 <= port <= 65535:
                raise ValueError(f"{field} {port}: must be between 0 and 65535")
        if self.grpc_port is None and self.rest_port is None:
            raise ValueError("grpc_port and rest_port are both off: nothing would be served")
        for field in ("poll_interval_s", "request_timeout_s", "max_batch_size", "worker_threads"):
            if getattr(self, field) <= 0:
                raise ValueError(f"{field} {getattr(self, field)}: must be more than 0")
