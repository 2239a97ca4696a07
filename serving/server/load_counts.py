"""What the loads of a model have cost."""

from dataclasses import dataclass


@dataclass
class LoadCounts:
    """Counts since the server started."""

    loads: int = 0
    evictions: int = 0
    """Versions that were unloaded to make room for those of other models."""
    waits: int = 0
    """Requests that waited for a load."""
    waited_s: float = 0.0
