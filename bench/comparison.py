"""One row of the benchmark: two measurements from the same run, and the claimed ratio."""

from dataclasses import dataclass
from statistics import median
from typing import Any, Literal


@dataclass(frozen=True)
class Comparison:
    """`ours_s` and `reference_s` are wall-clock seconds, measured alternately, one pair per repetition."""

    area: str
    what: str
    reference: str
    """What ours is compared with."""
    ours_s: tuple[float, ...]
    reference_s: tuple[float, ...]
    max_ratio: float
    """The claim: median(ours) / median(reference) is at most this; "three times as fast" is 1/3."""
    items: int | None = None
    """Images processed per repetition, for images/s."""
    unit: Literal["s", "MB"] = "s"
    """MB: both fields hold peak memory instead of seconds."""
    details: tuple[dict[str, Any], ...] = ()
    """What else was measured, for a table of its own."""

    @property
    def ratio(self) -> float:
        """Our median divided by the reference's: below 1 is faster or smaller."""
        return median(self.ours_s) / median(self.reference_s)

    @property
    def holds(self) -> bool:
        """Not if nothing was measured: a difference, such as of two peaks of memory, may be 0 or less."""
        return 0 < self.ratio <= self.max_ratio
