"""The states in which a component of a run, or a task of a rehearsal, ends."""

from typing import Final

RAN: Final = "ran"
CACHED: Final = "cached"
FAILED: Final = "failed"
SKIPPED: Final = "skipped"
