"""The peak memory of each component of a run, compared with that of the imports alone."""

from collections.abc import Sequence
from typing import Final

from bench.comparison import Comparison

IMPORTS: Final = "importing TFX and TensorFlow"
"""What these comparisons refer to. Rows with this reference go into the table of components, all others into that of
times."""


def memory_rows(
    area: str, run: str, peaks: Sequence[dict[str, float]], imports: Sequence[float], most: float
) -> list[Comparison]:
    """A row for each component that ran; `peaks` and `imports` in MB, one for each repetition."""
    return [
        Comparison(
            area, f"{run}: {component}", IMPORTS, tuple(of[component] for of in peaks), tuple(imports), most, unit="MB"
        )
        for component in peaks[0]
    ]
