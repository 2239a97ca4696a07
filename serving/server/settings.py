"""Settings of the local server: one immutable value, validated on construction."""

from dataclasses import dataclass
from pathlib import Path

from images.formats import MAX_PIXELS
from runtime.errors import UsageError, UserError
from schema.signatures import DEFAULT_GRPC_PORT, DEFAULT_MODEL_NAME, DEFAULT_REST_PORT

MIB = 1024 * 1024


class ListenError(UserError):
    """The server cannot listen on its address; the message names it."""


def check_model_name(name: str) -> None:
    """Raise UsageError if requests cannot name a model so."""
    if name in ("", ".", "..") or any(character in name for character in "/:"):  # also a folder of recorded scores
        raise UsageError(f"model_name {name!r}: must not be empty, '.' or '..', or contain '/' or ':'")


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Where to listen, what to serve, and how much to accept.

    What to serve: the folder `model_base_path` under `model_name`, or the models in `model_config_file`, which is read
    again after a change, at intervals of `model_config_poll_s` (None: never). `max_loaded_bytes` limits the estimated
    memory of all loaded models (None: no limit).

    `record_scores` is a folder that receives one file of score counts per version, for `autoencoder drift`, and
    `keep_images` one that receives a random share `keep_rate` of the images, for their review, where the oldest are
    replaced; with a `model_config_file`, each model has a folder of its own in them. Port 0 picks a free port; None
    disables the protocol. Pixel limits apply to the sizes in the images' headers, before decoding, because a small file
    can declare a huge image. `max_body_bytes` limits each request, `max_pending_bytes` all REST requests together.
    `tls_cert` and `tls_key` encrypt both protocols; with `token_file`, both require one of its tokens. Raises
    UsageError for a setting that the server cannot run with.
    """

    model_base_path: Path | None = None
    model_name: str = DEFAULT_MODEL_NAME
    model_config_file: Path | None = None
    model_config_poll_s: float | None = 1.0
    max_loaded_bytes: int | None = None
    host: str = "127.0.0.1"
    grpc_port: int | None = DEFAULT_GRPC_PORT
    rest_port: int | None = DEFAULT_REST_PORT
    poll_interval_s: float = 1.0
    request_timeout_s: float = 30.0
    header_timeout_s: float = 20.0
    stop_grace_s: float = 5.0
    enable_batching: bool = True
    max_batch_size: int = 64
    enable_model_warmup: bool = True
    record_scores: Path | None = None
    keep_images: Path | None = None
    keep_rate: float = 0.01
    keep_at_most: int = 1000
    keep_max_bytes: int = 256 * MIB
    tls_cert: Path | None = None
    tls_key: Path | None = None
    token_file: Path | None = None
    max_body_bytes: int = 64 * MIB
    max_image_pixels: int = MAX_PIXELS
    max_request_pixels: int = 512_000_000
    max_pending_bytes: int = 512 * MIB
    max_waiting_requests: int = 256
    max_connections: int = 2048
    worker_threads: int = 32

    def __post_init__(self) -> None:
        if (self.model_base_path is None) == (self.model_config_file is None):
            raise UsageError("give either a folder of versions or --model_config_file")
        if self.max_loaded_bytes is not None and self.model_config_file is None:
            raise UsageError("--max-loaded-mb needs --model_config_file: a single model is always loaded")
        check_model_name(self.model_name)
        for field in ("grpc_port", "rest_port"):
            port = getattr(self, field)
            if port is not None and not 0 <= port <= 65535:
                raise UsageError(f"{field} {port}: must be between 0 and 65535")
        if self.grpc_port is None and self.rest_port is None:
            raise UsageError("grpc_port and rest_port are both off: enable at least one")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise UsageError("--tls-cert and --tls-key belong together: give both")
        if not 0 < self.keep_rate <= 1:
            raise UsageError(f"--keep-rate {self.keep_rate}: must be more than 0 and at most 1")
        for field in ("poll_interval_s", "request_timeout_s", "max_batch_size", "worker_threads"):
            if getattr(self, field) <= 0:
                raise UsageError(f"{field} {getattr(self, field)}: must be greater than 0")

    @property
    def has_several_models(self) -> bool:
        """Whether a file lists the models, even if it lists only one now."""
        return self.model_config_file is not None

    @property
    def max_requests(self) -> int:
        """How many requests may be answered or wait at a time, by protocol."""
        return self.worker_threads + self.max_waiting_requests

    @property
    def threads(self) -> int:
        """Threads that answer requests; with several models one for each request, which waits in its model's queue."""
        return self.max_requests if self.has_several_models else self.worker_threads

    @property
    def max_requests_per_model(self) -> int:
        """How many requests of one model may be answered or wait: the others must find threads."""
        return self.max_requests // 2 if self.has_several_models else 2 * self.max_requests

    def scores_folder(self, model_name: str) -> Path | None:
        """The folder in which a model's scores are recorded; None: they are not."""
        if self.record_scores is None or not self.has_several_models:
            return self.record_scores
        return self.record_scores / model_name
