"""What libraries print while they are imported is shown only if the import fails."""

import os
import subprocess
import sys

from repository import REPOSITORY

_IMPORT = """
import os, sys
from runtime.imports import imported_for_good
os.write(2, b"before\\n")
with imported_for_good():
    os.write(2, b"a greeting\\n")
    print("a warning", file=sys.stderr)
    {}
print("after", file=sys.stderr)
"""


def stderr_of(statement):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", _IMPORT.format(statement)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stderr


def test_greetings_are_held_back():
    assert stderr_of("import json") == "before\nafter\n"


def test_they_are_shown_before_the_error_if_the_import_fails():
    shown = stderr_of("import no_such_module")
    assert shown.startswith("before\na greeting\na warning\nTraceback")
    assert "No module named 'no_such_module'" in shown
