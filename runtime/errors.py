"""Exit codes, and the base of every error that is meant for a person."""

from typing import ClassVar, Final

DONE: Final = 0
FAILED: Final = 1
BAD_USAGE: Final = 2
"""Nothing was started."""
REFUSED: Final = 3
"""The run finished, but the gate refused the model; for `drift`: retraining is due."""


class UserError(Exception):
    """An error that its message explains: what happened, where, and what to do. Shown without a traceback."""

    exit_code: ClassVar[int] = FAILED
    """The exit status of a command that this error ends."""
