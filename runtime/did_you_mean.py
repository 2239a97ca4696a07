"""The question at the end of an error about an unknown name: the known name that it resembles."""

import difflib
from collections.abc import Iterable

RESEMBLES = 0.6
"""The least similarity, from 0 to 1, of names of which one may be a mistyped other."""


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "", *, similarity: float = RESEMBLES) -> str:
    """The closest known name, as "; did you mean 'dense'?", whatever its case; `otherwise` if none is close."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=similarity)
    return f"; did you mean '{by_lower[near[0]]}'?" if near else otherwise
