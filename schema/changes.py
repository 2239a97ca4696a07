"""Names of small changes to an image that change nothing about what it shows."""

from typing import Final, Literal, get_args

ChangeName = Literal["light", "shift", "rotation", "noise", "blur"]
CHANGES: Final[tuple[ChangeName, ...]] = get_args(ChangeName)
