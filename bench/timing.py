"""Wall seconds and peak memory of commands and of whole runs."""

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
from schema.artifacts import PEAK_MEMORY_PROPERTY

REPOSITORY = Path(__file__).parent.parent
COMMAND_LINE = (sys.executable, "-c", "from pipeline.cli import main; main()")
"""`autoencoder`, of this checkout."""


class BenchmarkError(Exception):
    """Work that was to be measured failed; the message holds the end of its output."""


def seconds_of_command(command: Sequence[str], *, exit_code: int = 0) -> float:
    """Wall seconds of one command in its own process; raises BenchmarkError unless it ends with `exit_code`."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    started = time.perf_counter()
    ran = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if ran.returncode != exit_code:
        raise BenchmarkError(f"{' '.join(command)} ended with {ran.returncode}: {(ran.stdout + ran.stderr)[-2000:]}")
    return seconds


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """What it returns in a process of its own, which takes nothing over and leaves nothing behind."""
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def in_turn(
    ours: Callable[[], float], reference: Callable[[], float], repetitions: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(ours, reference), measured alternately, so that what else the machine does falls on both."""
    pairs = [(ours(), reference()) for _ in range(repetitions)]
    return tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs)


def run_here(settings: dict[str, Any]) -> tuple[float, float]:
    """Run a whole pipeline in this process, so that imports weigh once: (wall seconds, peak resident MB)."""
    from pipeline.configuration.configuration import Configuration
    from pipeline.local.run import run
    from runtime.errors import DONE, REFUSED

    configuration = Configuration.model_validate(settings)
    started = time.perf_counter()
    code = run(configuration, as_json=False)
    seconds = time.perf_counter() - started
    if code not in (DONE, REFUSED):
        raise BenchmarkError(f"the run in {configuration.root}/{configuration.name} ended with {code}; see its run.log")
    return seconds, peak_memory_mb(Path(configuration.root, configuration.name))


def peak_memory_mb(folder: Path) -> float:
    """Of the component that took most, resident, by what a run noted in the metadata store in `folder`."""
    from tfx.orchestration import metadata

    with metadata.Metadata(metadata.sqlite_metadata_connection_config(str(folder / METADATA_FILE))) as handle:
        told = [artifact.custom_properties for artifact in handle.store.get_artifacts()]
    return max(of[PEAK_MEMORY_PROPERTY].double_value for of in told if PEAK_MEMORY_PROPERTY in of)
