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


_ON_DEMAND = """
import sys
from runtime.imports import import_on_demand
import_on_demand("xml.etree")
import_on_demand("package")
import package.light
print(package.light.VALUE, "package.heavy" in sys.modules, hasattr(package, "__all__"), "package.heavy" in sys.modules)
from package import Heavy
print(Heavy, "package.heavy" in sys.modules, package.light.VALUE)
import xml.etree.ElementTree
print(xml.etree.ElementTree.fromstring("<a/>").tag)
try:
    package.nothing
except AttributeError as error:
    print(error)
"""


def test_a_package_imported_on_demand_is_complete_once_one_of_its_own_names_is_needed(tmp_path):
    files = {"__init__": "from package.heavy import Heavy", "heavy": "Heavy = 'heavy'", "light": "VALUE = 'light'"}
    (tmp_path / "package").mkdir()
    for name, text in files.items():
        (tmp_path / "package" / f"{name}.py").write_text(text)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPOSITORY)])}
    done = subprocess.run([sys.executable, "-c", _ON_DEMAND], env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "light False False False",
        "heavy True light",
        "a",
        "module 'package' has no attribute 'nothing'",
    ], done.stderr
