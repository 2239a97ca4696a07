"""An edit changes the fingerprints of the components that depend on it, and no others."""

import shutil
import subprocess
import sys

import pytest
from repository import REPOSITORY

ASK = "import sys; from runtime.fingerprint import source_fingerprint as f; print(*map(f, sys.argv[1:]))"
COMPONENTS = [
    "components.example_gen.component",
    "trainer.preprocessing",
    "trainer.module",
    "components.evaluation.evaluator",
    "components.report.component",
]


@pytest.fixture
def copy(tmp_path):
    for package in ("schema", "runtime", "images", "components", "trainer"):
        shutil.copytree(REPOSITORY / package, tmp_path / package)
    return tmp_path


def fingerprints(folder):
    command = [sys.executable, "-c", ASK, *COMPONENTS]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.split()


@pytest.mark.parametrize(
    ("edited", "changed"),
    [
        ("trainer/families/registry.py", {"trainer.module"}),
        ("trainer/families/noise.py", {"trainer.module"}),
        ("trainer/preprocessing.py", {"trainer.preprocessing"}),
        ("components/example_gen/splits.py", {"components.example_gen.component"}),
        ("components/evaluation/metrics.py", {"components.evaluation.evaluator"}),
        ("components/report/page.html.jinja", {"components.report.component"}),
        ("schema/features.py", set(COMPONENTS)),
    ],
)
def test_an_edit_changes_the_fingerprints_of_exactly_its_importers(copy, edited, changed):
    before = fingerprints(copy)
    with (copy / edited).open("a") as file:
        file.write("# edited\n")
    after = fingerprints(copy)
    assert {name for name, a, b in zip(COMPONENTS, before, after, strict=True) if a != b} == changed
