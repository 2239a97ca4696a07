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


_IMPORTS = """
from pipeline.metadata.measure import start_measuring
from runtime.keras_flavour import use_keras_2
from schema.artifacts import PEAK_MEMORY_PROPERTY
measure = start_measuring()
use_keras_2()
import pipeline.graph, pipeline.local.runner
print(measure()[PEAK_MEMORY_PROPERTY])
"""


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
    return max(peaks_mb(folder).values())


def peaks_mb(folder: Path) -> dict[str, float]:
    """Component -> its largest resident memory, as recorded in the metadata store in `folder`."""
    from ml_metadata import metadata_store
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    config = mlmd.ConnectionConfig()
    config.sqlite.filename_uri = str(folder / METADATA_FILE)
    store = metadata_store.MetadataStore(config)
    peaks = {
        artifact.id: artifact.custom_properties[PEAK_MEMORY_PROPERTY].double_value
        for artifact in store.get_artifacts()
        if PEAK_MEMORY_PROPERTY in artifact.custom_properties
    }
    components = {
        execution.id: context.name.rpartition(".")[2]
        for context in store.get_contexts_by_type("node")
        for execution in store.get_executions_by_context(context.id)
    }
    events = store.get_events_by_artifact_ids(peaks)
    return {components[e.execution_id]: peaks[e.artifact_id] for e in events if e.type == mlmd.Event.OUTPUT}


def imports_mb() -> float:
    """Largest resident memory of a process that imports what a run imports, and does nothing."""
    return float(run_command([sys.executable, "-c", _IMPORTS], exit_codes=(0,))[0])
