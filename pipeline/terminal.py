"""Terminal output: a line per component with its progress, and a summary; everything else goes to the log file."""

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from pipeline.states import CACHED, FAILED, RAN, SKIPPED
from schema import features
from schema.changes import ALARMS_AT
from schema.reviewed import LAST_MODEL, THIS_MODEL

_MARKS = {RAN: ("✓", "green"), CACHED: ("=", "cyan"), FAILED: ("✗", "red"), SKIPPED: ("-", "dim")}
_PLAIN_INTERVAL_S = 10.0
_LONGEST_SILENCE_S = 30.0
_WIDTH_OF_FILES = 1000
_KINDS_SHOWN = 5


class _PlainConsole(Console):
    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(features.printable(text), **options)


def plain_console(file: TextIO | None = None, *, stderr: bool = False) -> Console:
    """A console that prints brackets and colons literally, without Rich's markup, and truncates nothing.

    Characters that would control the terminal, such as those in a file's name, are percent-encoded.
    """
    shown = _PlainConsole(file=file, stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=True)
    if not shown.is_terminal:
        shown.width = _WIDTH_OF_FILES
    return shown


def plain_table(columns: Iterable[str], *, right: Container[str], wrapped: Container[str] = ()) -> Table:
    """A table without lines; `right`: columns of numbers, `wrapped`: columns that may take several lines."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", no_wrap=column not in wrapped)
    return table


@contextlib.contextmanager
def output_to_log(log_path: Path) -> Iterator[tuple[TextIO, TextIO]]:
    """Redirect file descriptors 1 and 2, hence native libraries' output, to `log_path`; yield the original streams."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("a", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    streams = [os.fdopen(fd, "w", encoding="utf-8", closefd=False) for fd in saved]
    try:
        yield streams[0], streams[1]
    finally:
        for stream in (*streams, sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):  # the log's disk may be full
                stream.flush()
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        os.close(saved[0])
        os.close(saved[1])


class ComponentProgress(logging.Handler):
    """A line per component, from the runner's events and from log records with `done`, `total` and `unit`.

    Where output is not a terminal, components that report nothing for long get a line, too.
    """

    def __init__(self, console: Console, expected_seconds: dict[str, float]) -> None:
        """`expected_seconds`: each component's previous duration, for components that report no progress."""
        super().__init__(logging.INFO)
        self._console = console
        self._expected_seconds = expected_seconds
        self._name = ""
        self._started = 0.0
        self._progress: dict[str, Any] = {}
        self._first_report: tuple[float, int] | None = None
        self._last_plain = 0.0
        self._live: Live | None = None
        self._ended = threading.Event()
        self._watch: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if hasattr(record, "notice"):
            self._console.print(record.getMessage())
        if not hasattr(record, "done"):
            return
        if self._first_report is None or record.__dict__["unit"] != self._progress["unit"]:
            self._first_report = (time.monotonic(), record.__dict__["done"])
        self._progress = {name: record.__dict__.get(name) for name in ("done", "total", "unit", "detail")}
        if not self._console.is_terminal and time.monotonic() - self._last_plain > _PLAIN_INTERVAL_S:
            self._print_plain(self._time_left())

    def listen(self, name: str, outcome: Any) -> None:
        """Handle the runner's events: None before a component starts, its ComponentOutcome when it has ended."""
        if outcome is None:
            self.start(name)
        else:
            self.stop(outcome.state, outcome.seconds)

    def start(self, name: str) -> None:
        self._name, self._started = name, time.monotonic()
        self._progress, self._first_report, self._last_plain = {}, None, time.monotonic()
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._render, console=self._console, transient=True, refresh_per_second=8)
            self._live.start()
        else:
            self._ended.clear()
            self._watch = threading.Thread(target=self._break_silence, name="progress", daemon=True)
            self._watch.start()

    def stop(self, state: str, seconds: float) -> None:
        self.abort()
        mark, style = _MARKS[state]
        progress = self._progress if state == RAN else {}
        done = f"{progress['total']:,} {progress['unit']}" if progress else ""
        line = Text.assemble(
            (f"{mark} ", style), f"{self._name:<22} ", (f"{state:<7}", style), f"{seconds:7.1f} s  {done}"
        )
        self._console.print(line)

    def abort(self) -> None:
        if self._live:
            self._live.stop()
            self._live = None
        if self._watch:
            self._ended.set()
            self._watch.join()
            self._watch = None

    def _break_silence(self) -> None:
        """Print that the component still works whenever nothing was reported for a while, until it has ended."""
        while not self._ended.wait(max(0.0, self._last_plain + _LONGEST_SILENCE_S - time.monotonic())):
            if time.monotonic() - self._last_plain >= _LONGEST_SILENCE_S:
                self._print_plain("still working")

    def _print_plain(self, outlook: str) -> None:
        self._last_plain = time.monotonic()
        self._console.print(self._line(outlook).plain)

    def _render(self) -> Any:
        return Spinner("dots", text=self._line(self._time_left()))

    def _line(self, outlook: str) -> Text:
        parts = [f"{self._name:<22} {time.monotonic() - self._started:5.0f} s"]
        if self._progress:
            progress = self._progress
            parts.append(f"{progress['done']:,} of {progress['total']:,} {progress['unit']}")
            if progress.get("detail"):
                parts.append(progress["detail"])
        return Text("  ".join([*parts, outlook] if outlook else parts))

    def _time_left(self) -> str:
        left = self._seconds_left()
        return f"about {left:.0f} s left" if left >= 1 else ""

    def _seconds_left(self) -> float:
        """Estimated from the pace since the first report, without the time before it, or else from the last run."""
        if self._first_report is None:
            return self._expected_seconds.get(self._name, 0.0) - (time.monotonic() - self._started)
        since, done_then = self._first_report
        done = self._progress["done"] - done_then
        return (time.monotonic() - since) / done * (self._progress["total"] - self._progress["done"]) if done else 0.0


def print_summary(console: Console, document: dict[str, Any]) -> None:
    """Print the thresholds, the verdict, and the paths of the results."""
    columns = ("metric", "images", "value", "bound", "verdict")
    table = plain_table(columns, right=("value", "bound"), wrapped=columns)
    for row in document["thresholds"]:
        verdict = Text("passed", "green") if row["passed"] else Text("refused", "red")
        images = "all" if row["label"] is None else f"label {row['label']}"
        value = "none" if row["value"] is None else f"{row['value']:.5g}"
        table.add_row(row["metric"], images, value, _bound(row), verdict)
    bounded = {row["metric"] for row in document["thresholds"] if row["label"] is None}
    for name, value in document["metrics"].items():
        if name not in bounded and not name.startswith(ALARMS_AT):
            table.add_row(name, "all", f"{value:.5g}", "", "")
    console.print()
    console.print(table)
    console.print()
    for row in document["thresholds"]:
        if row["reason"]:
            console.print(f"refused: {row['reason']}; {row['remedy']}", style="red", soft_wrap=True)
    for warning in document["warnings"]:
        console.print(f"warning: {warning}", style="yellow", soft_wrap=True)
    if document["purpose"]:
        console.print(f"purpose      {document['purpose']}")
    if alarms := {x: share for x, share in document["metrics"].items() if x.startswith(ALARMS_AT)}:
        worst = max(alarms, key=alarms.__getitem__)
        change, images = worst.removeprefix(ALARMS_AT), document["steadiness_images"]
        counted = f" ({round(alarms[worst] * images):,} of {images:,})" if images else ""
        console.print(
            f"steadiness   {100 * alarms[worst]:.3g} % of the normal images{counted} raise an alarm at worst ({change})"
        )
    _print_kinds_of_defect(console, document["kinds"])
    if document["images"]:
        used = {features.TRAIN: " (all calibrate, too)"} if document["model"].get("cross_fitted") else {}
        counts = ", ".join(
            f"{name} {count:,}{used.get(name, '')}" for name, count in document["images"].items() if count
        )
        console.print(f"images       {counts}")
    _print_reviewed(console, document["reviewed"], document["changes"])
    if document["pushed"]:
        console.print(f"model        {document['pushed']}")
    else:
        because = f": {document['not_pushed_because']}" if document["not_pushed_because"] else ""
        console.print(f"model        nothing was pushed{because}")
    for name, path in document["paths"].items():
        console.print(f"{name:<12} {path}")


def _print_kinds_of_defect(console: Console, kinds: list[dict[str, Any]]) -> None:
    """A good average may hide a kind that the model is blind to, and a good ranking a threshold above all defects."""
    if not kinds:
        return
    shown = []
    for kind in kinds[:_KINDS_SHOWN]:
        counted = f"{kind['images']:,}" if kind["found"] is None else f"{kind['found']:,} of {kind['images']:,}"
        shown.append(f"{kind['label'] or '(no label)'} {counted} (AUROC {kind['auroc']:.3f})")
    if left_out := kinds[_KINDS_SHOWN:]:
        shown.append(f"{len(left_out):,} more in the report")
    console.print(f"found        {', '.join(shown)}")


def _print_reviewed(console: Console, reviewed: dict[str, Any], changes: dict[str, Any]) -> None:
    """What is different from the last model, and how both judge the images that people have decided about."""
    if changes:
        told = ", ".join(f"{name} {_short(before)} -> {_short(now)}" for name, (before, now) in changes.items())
        console.print(f"changed      {told}")
    if not reviewed:
        return
    console.print(
        f"reviewed     {reviewed['defects']:,} defects and {reviewed['normal']:,} normal images test the model:"
    )
    for name, told in ((THIS_MODEL, "this model"), (LAST_MODEL, "last model")):
        if name in reviewed:
            console.print(f"  {told:<10} {_rates(reviewed[name])}")
    if reviewed["comparison"]:
        console.print(f"             {_comparison(reviewed['comparison'])}")


def _short(value: Any) -> str:
    return "none" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _rates(rates: dict[str, Any]) -> str:
    parts = []
    if rates["auroc"]:
        low, high = rates["auroc"]["interval"]
        parts.append(f"AUROC {rates['auroc']['value']:.3f} ({low:.3f} to {high:.3f})")
    for name, told in (("recall", "defects found"), ("false_alarms", "false alarms")):
        if found := rates[name]:
            low, high = (100 * end for end in found["interval"])
            parts.append(f"{told} {found['count']} of {found['of']} ({low:.0f} to {high:.0f} %)")
    return ", ".join(parts)


def _comparison(comparison: dict[str, Any]) -> str:
    told = {"auroc": "AUROC", "right_alarms": "share of right verdicts"}
    numbers = ", ".join(
        f"{name} {comparison[key]['difference']:+.3f} (p-value {comparison[key]['p_value']:.2g})"
        for key, name in told.items()
        if comparison[key]
    )
    return {
        "better": f"on the reviewed images, this model is better: {numbers}",
        "worse": f"on the reviewed images, this model is worse: {numbers}",
        "mixed": f"on the reviewed images, this model is better in one respect and worse in another: {numbers}",
        "no_difference": f"on the reviewed images, no difference can be shown; review more of them: {numbers}",
    }[comparison["verdict"]]


def _bound(row: dict[str, Any]) -> str:
    parts = []
    if row["min"] is not None:
        parts.append(f">= {row['min']:.5g}")
    if row["max"] is not None:
        parts.append(f"<= {row['max']:.5g}")
    origin = "" if row["origin"] == "configured" else f" ({row['origin']})"
    return " and ".join(parts) + origin
