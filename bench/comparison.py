"""One line of the benchmark: two measurements in one run of it, and the ratio that is claimed."""

from dataclasses import dataclass
from statistics import median
from typing import Literal


@dataclass(frozen=True)
class Comparison:
    """`ours_s` and `reference_s` are wall seconds for the same work, measured in turn, one pair per repetition."""

    area: str
    what: str
    reference: str
    """What the work is compared with."""
    ours_s: tuple[float, ...]
    reference_s: tuple[float, ...]
    max_ratio: float
    """The claim: median(ours) / median(reference) is at most this; "3 times as fast" is 1/3."""
    items: int | None = None
    """Images processed in each repetition, for images/s."""
    unit: Literal["s", "MB"] = "s"
    """MB: both hold peak memory, not seconds."""

    @property
    def ratio(self) -> float:
        """Our median as a fraction of the reference's: below 1 is faster, or smaller."""
        return median(self.ours_s) / median(self.reference_s)

    @property
    def holds(self) -> bool:
        return self.ratio <= self.max_ratio
