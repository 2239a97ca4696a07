"""Turns every command's errors into a message and an exit status."""

import contextlib
import errno
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from runtime.errors import FAILED, UserError
from schema.features import printable

_KILLED_BY: Final = 128
"""Added to a signal's number, as shells do."""
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_DISK_FULL = ("No space left on device", "database or disk is full", "Disk quota exceeded")
_received: list[int] = []
"""Signals that have interrupted this process."""
_MEMORY_FULL = ("Cannot allocate memory", "std::bad_alloc", "OOM when allocating", "Unable to allocate")


class Interrupted(KeyboardInterrupt):  # noqa: N818 - nothing went wrong
    """Ctrl-C, or SIGTERM from an init system or a container engine, during a run."""


class Command(click.Command):
    """A command that ends with a message and an exit status instead of a traceback.

    Unexpected exceptions keep their traceback.
    """

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (Exception, Interrupted) as error:
            translated = translate(error, writes_runs=any(one.name == "overrides" for one in self.params))
            if translated is None:
                raise
            message, status = translated
            click.secho(printable(message), err=True, fg="red" if status == FAILED else None)
            ctx.exit(status)


def translate(error: BaseException, *, writes_runs: bool = True) -> tuple[str, int] | None:
    """The message and exit status for an error; None if it is unexpected. `writes_runs`: with the option `--set`."""
    if isinstance(error, Interrupted):
        return "\ninterrupted; the next run continues after the last finished component", _KILLED_BY + error.args[0]
    if isinstance(error, UserError):
        return message_of(error, writes_runs=writes_runs), error.exit_code
    fault = _machine_fault(error, None, writes_runs=writes_runs)
    return (fault, FAILED) if fault else None


def message_of(error: BaseException, folder: Path | None = None, *, writes_runs: bool = True) -> str:
    """What to tell a user about an error, with the remedy if a disk or the memory is full; `folder`: the run's."""
    return _machine_fault(error, folder, writes_runs=writes_runs) or _explanation(error)


@contextlib.contextmanager
def naming_full_disk(target: object) -> Iterator[None]:
    """Add the name of what is being written to the error of a full disk, which a write alone does not know."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise OSError(error.errno, error.strerror, str(target)) from None


def interrupt_on_signals() -> None:
    """Raise Interrupted on SIGINT and SIGTERM; a second signal ends the process immediately, as `kill -9` does."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)


def raise_if_interrupted() -> None:
    """Raise Interrupted if a signal came: native code that it interrupts may raise an error of its own instead."""
    if _received:
        raise Interrupted(_received[0])


def _interrupt(number: int, _: Any) -> None:
    _received.append(number)
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL)
    raise Interrupted(number)


def _machine_fault(error: BaseException, folder: Path | None, *, writes_runs: bool) -> str | None:
    """The message for a full disk or memory; None if the error has another cause."""
    for cause in _chain(error):
        text = str(cause)
        if getattr(cause, "errno", None) in _FULL or any(sign in text for sign in _DISK_FULL):
            free = f"; {folder} has {shutil.disk_usage(folder).free / 2**20:,.1f} MB free" if folder else ""
            remedy = (
                "delete old runs, or choose another disk with --set root=..."
                if writes_runs
                else "free some of it, or write to another disk"
            )
            return f"no space left on a disk ({_explanation(cause)}){free}: {remedy}"
        if isinstance(cause, MemoryError) or any(sign in text for sign in _MEMORY_FULL):
            return (
                f"out of memory ({_explanation(cause)}): lower image.height_px and width_px, trainer.batch_size or "
                "trainer.cache_mb, or close other programs"
            )
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _explanation(error: BaseException) -> str:
    """The error's own message, without the traceback and the names of steps that Beam wraps around it."""
    text = str(error).strip()
    return text.split(" [while running")[0] if text else type(error).__name__
