"""Names of small changes to an image that change nothing about what it shows."""

from typing import Final, Literal, get_args

ChangeName = Literal["light", "shift", "rotation", "noise", "blur"]
ALARMS_AT: Final = "alarms_at_"
"""How the names of metrics begin that tell how many normal images raise an alarm after a change."""
CHANGES: Final[tuple[ChangeName, ...]] = get_args(ChangeName)
