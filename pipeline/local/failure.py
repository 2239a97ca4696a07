"""What an error means to a person: the message that explains, and the remedy where the machine is at fault."""

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

_DISK_FULL = ("No space left on device", "database or disk is full", "Disk quota exceeded")
_MEMORY_FULL = ("Cannot allocate memory", "std::bad_alloc", "OOM when allocating", "Unable to allocate")


def explain(error: BaseException | None, folder: Path) -> str:
    """One message for an error in a run in `folder`."""
    return machines_fault(error, folder) or _innermost(error)


def machines_fault(error: BaseException | None, folder: Path) -> str | None:
    """What the machine lacks, disk or memory, with the remedy; None where the error has another cause."""
    for one in _chain(error):
        text = str(one)
        if getattr(one, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or any(sign in text for sign in _DISK_FULL):
            free_mb = shutil.disk_usage(folder).free / 2**20
            return (
                f"no space left on a disk ({_innermost(one)}); {folder} has {free_mb:,.1f} MB free: delete old runs, "
                "or choose another disk with --set root=..."
            )
        if isinstance(one, MemoryError) or any(sign in text for sign in _MEMORY_FULL):
            return (
                f"out of memory ({_innermost(one)}): lower image.height_px and width_px, trainer.batch_size or "
                "trainer.cache_mb, or close other programs"
            )
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _innermost(error: BaseException | None) -> str:
    """The innermost message that explains: Beam wraps it in its own, with a traceback before it."""
    text = str(error).strip()
    return text.split(" [while running")[0] if text else type(error).__name__
