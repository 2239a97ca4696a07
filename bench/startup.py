"""Measures how long simple commands take: the help, and an error in the configuration."""

import sys

from bench.comparison import Comparison
from bench.timing import COMMAND_LINE, alternately, seconds_of_command
from runtime.errors import BAD_USAGE

_MAX_RATIO = 10.0
_PAIRS_PER_REPETITION = 5


def compare(size: str, repetitions: int) -> list[Comparison]:
    """Compare each command with an empty Python program; they are so short that a repetition measures several pairs."""

    def measured(what: str, *arguments: str, exit_code: int) -> Comparison:
        ours, reference = alternately(
            lambda: seconds_of_command([*COMMAND_LINE, *arguments], exit_code=exit_code),
            lambda: seconds_of_command([sys.executable, "-c", "pass"]),
            1 if size == "tiny" else repetitions * _PAIRS_PER_REPETITION,
        )
        return Comparison("startup", what, "python -c pass", ours, reference, _MAX_RATIO)

    return [
        measured("autoencoder --help", "--help", exit_code=0),
        measured("a configuration error", "run", "--set", "trainer.epohcs=1", exit_code=BAD_USAGE),
    ]
