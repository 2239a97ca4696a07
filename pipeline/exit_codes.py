"""What the command line's exit status means."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Final

DONE: Final = 0
FAILED: Final = 1
BAD_USAGE: Final = 2
"""Nothing was started."""
REFUSED: Final = 3
"""The run finished, but the gate refused the model; of `drift`: it is time to re-train."""


@contextlib.contextmanager
def exit_with_message() -> Iterator[None]:
    """Tell a configuration's mistake, or an interruption, in a line and end with its exit code."""
    import click

    from pipeline.configuration import ConfigurationError

    try:
        yield
    except ConfigurationError as error:
        click.echo(str(error), err=True)
        sys.exit(BAD_USAGE)
    except KeyboardInterrupt:
        click.echo("\ninterrupted; the next run continues after the last finished component", err=True)
        sys.exit(130)
