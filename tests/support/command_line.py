"""The command line in a process of its own, as a user starts it."""

import os
import subprocess
import sys
from pathlib import Path

from repository import REPOSITORY


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", "from pipeline.cli import main; main()", *map(str, arguments)]


def autoencoder(*arguments: object, cwd: Path = REPOSITORY, **variables: str) -> tuple[int, str, str]:
    """(exit code, standard output, standard error)."""
    environment = {**os.environ, "PYTHONPATH": str(cwd), **variables}
    ran = subprocess.run(command(*arguments), cwd=cwd, env=environment, capture_output=True, text=True, timeout=900)
    return ran.returncode, ran.stdout, ran.stderr
