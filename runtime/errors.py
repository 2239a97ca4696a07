"""Exit codes, and the base classes of all errors that are meant for a user."""

from typing import ClassVar, Final

DONE: Final = 0
FAILED: Final = 1
BAD_USAGE: Final = 2
"""Nothing was started."""
REFUSED: Final = 3
"""The run finished, but the gate refused the model; for `drift`: retraining is due."""


class UserError(Exception):
    """An error whose message says what happened, where, and what to do. Shown without a traceback."""

    exit_code: ClassVar[int] = FAILED
    """The exit status of a command that this error ends."""


class UsageError(UserError):
    """Bad usage, configuration or data: nothing was started."""

    exit_code = BAD_USAGE
