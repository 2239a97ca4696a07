"""What the command line's exit status means."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import Any, Final

from runtime.errors import BAD_USAGE

_KILLED_BY: Final = 128
"""Added to a signal's number, as shells do."""


class Interrupted(KeyboardInterrupt):  # noqa: N818 - nothing went wrong
    """Ctrl-C, or SIGTERM as an init system or a container engine sends it."""


@contextlib.contextmanager
def exit_with_message() -> Iterator[None]:
    """Tell a configuration's mistake, or an interruption, in a line and end with its exit code."""
    import click

    from pipeline.configuration.configuration import ConfigurationError

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        yield
    except ConfigurationError as error:
        click.echo(str(error), err=True)
        sys.exit(BAD_USAGE)
    except KeyboardInterrupt as interruption:
        click.echo("\ninterrupted; the next run continues after the last finished component", err=True)
        sys.exit(_KILLED_BY + (interruption.args or (signal.SIGINT,))[0])


def _interrupt(number: int, _: Any) -> None:
    """End in order; a second signal ends the process at once, which loses no more than `kill -9` does."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL)
    raise Interrupted(number)
