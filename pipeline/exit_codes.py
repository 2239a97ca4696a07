"""What the command line's exit status means."""

from typing import Final

DONE: Final = 0
FAILED: Final = 1
BAD_USAGE: Final = 2
"""Nothing was started."""
REFUSED: Final = 3
"""The run finished, but the gate refused the model; of `drift`: it is time to re-train."""
