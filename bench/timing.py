"""Measures wall-clock seconds and peak memory of commands and whole runs."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from pipeline.metadata.store import METADATA_FILE
from runtime.errors import UserError
from schema.artifacts import PEAK_MEMORY_PROPERTY

REPOSITORY = Path(__file__).parent.parent
COMMAND_LINE = (sys.executable, "-c", "from pipeline.cli import main; main()")
"""This checkout's `autoencoder`."""


class BenchmarkError(UserError):
    """The measured work failed; the message contains the end of its output."""


def seconds_of_command(command: Sequence[str], *, exit_code: int = 0) -> float:
    """Wall-clock seconds of a command; raises BenchmarkError unless it exits with `exit_code`."""
    return run_command(command, exit_codes=(exit_code,))[1]


def run_command(command: Sequence[str], *, exit_codes: Sequence[int]) -> tuple[str, float]:
    """(standard output, wall-clock seconds) of a command; raises BenchmarkError for any other exit code."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    started = time.perf_counter()
    ran = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if ran.returncode not in exit_codes:
        output = (ran.stdout + ran.stderr)[-2000:]
        expected = " or ".join(map(str, exit_codes))
        raise BenchmarkError(f"{' '.join(command)} exited with {ran.returncode}, not {expected}: {output}")
    return ran.stdout, seconds


def in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call the function in a new process, which shares no memory with others, and return its result."""
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def alternately(
    ours: Callable[[], float], reference: Callable[[], float], repetitions: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(ours, reference), measured alternately, so that other load on the machine affects both."""
    pairs = [(ours(), reference()) for _ in range(repetitions)]
    return tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs)


def run_here(settings: dict[str, Any]) -> tuple[float, float]:
    """Run a whole pipeline in this process, which imports only once: (wall-clock seconds, peak resident MB)."""
    from pipeline.configuration.configuration import Configuration
    from pipeline.local.run import run
    from runtime.errors import DONE, REFUSED

    configuration = Configuration.model_validate(settings)
    folder = Path(configuration.root, configuration.name)
    started = time.perf_counter()
    code = run(configuration, as_json=False)
    seconds = time.perf_counter() - started
    if code not in (DONE, REFUSED):
        raise BenchmarkError(f"the run in {folder} exited with {code}; see its run.log")
    return seconds, peak_memory_mb(folder)


def peak_memory_mb(folder: Path) -> float:
    """Largest resident memory of any component, as recorded in the metadata store in `folder`."""
    from tfx.orchestration import metadata

    with metadata.Metadata(metadata.sqlite_metadata_connection_config(str(folder / METADATA_FILE))) as handle:
        properties = [artifact.custom_properties for artifact in handle.store.get_artifacts()]
    return max(of[PEAK_MEMORY_PROPERTY].double_value for of in properties if PEAK_MEMORY_PROPERTY in of)
