"""Settings of a watch: one immutable value, validated on construction."""

from dataclasses import dataclass
from pathlib import Path

from runtime.errors import UsageError
from runtime.object_store import AnyPath
from serving.watching.sinks import Folder, Sink

MIB = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class WatchSettings:
    """What to watch, with which model, and where results and events go.

    `model` is a SavedModel or a folder of versions, whose newest is used as soon as it appears. `poll_s` is the
    interval between listings; None: notifications where possible. Results are written beside `state`. Limits are per
    kind of file and per receiver. Raises UsageError if the watch would score its own pictures.
    """

    place: AnyPath
    model: Path
    state: Path
    sinks: tuple[Sink, ...] = ()
    poll_s: float | None = None
    max_results_bytes: int = 64 * MIB
    max_queued_bytes: int = 256 * MIB
    record_scores: Path | None = None
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = None
    grace_s: float = 10.0

    def __post_init__(self) -> None:
        names = [sink.name for sink in self.sinks]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise UsageError(f"--on-anomaly {repeated[0]} is given twice; receivers must differ in more than the login")
        if not isinstance(self.place, Path):
            return
        if not self.place.is_dir():
            raise UsageError(f"{self.place}: no such folder")
        for sink in self.sinks:
            if isinstance(sink, Folder) and sink.folder.resolve().is_relative_to(self.place.resolve()):
                raise UsageError(f"{sink.name} is below the watched folder, and would be scored; choose another folder")

    @property
    def results(self) -> Path:
        """The start of the names of all files with results."""
        return self.state.with_suffix("")
