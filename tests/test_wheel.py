"""The wheel: everything that the installed package needs, in the same bytes wherever it is built."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from repository import REPOSITORY

GIT = ["git", "-c", "user.name=Test", "-c", "user.email=test@example.com"]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A commit of the files as they are now, whether or not they are committed yet."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("not a git checkout")
    folder = tmp_path_factory.mktemp("repository")
    for name in filter(lambda name: (REPOSITORY / name).is_file(), listed.stdout.splitlines()):
        if not name.startswith("sample_images/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / name)
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "All"]):
        subprocess.run([*GIT, *command], cwd=folder, check=True)
    return folder


def build(source: Path, output: Path, *, umask: int) -> Path:
    script = [str(source / "deploy" / "build-wheel.sh"), str(output), sys.executable]
    before = os.umask(umask)
    try:
        subprocess.run(script, cwd=source, check=True, capture_output=True)
    finally:
        os.umask(before)
    [wheel] = output.glob("*.whl")
    return wheel


def test_two_builds_of_one_commit_are_identical(repository: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    before = os.umask(0o077)
    try:
        subprocess.run(["git", "clone", "-q", str(repository), str(clone)], check=True)
    finally:
        os.umask(before)
    wheels = build(repository, tmp_path / "a", umask=0o022), build(clone, tmp_path / "b", umask=0o077)
    digests = {hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in wheels}
    assert len(digests) == 1


def test_the_wheel_holds_every_module_and_data_file(repository: Path, tmp_path: Path) -> None:
    wheel = build(repository, tmp_path, umask=0o022)
    held = set(zipfile.ZipFile(wheel).namelist())
    packages = ("schema", "runtime", "images", "components", "trainer", "pipeline", "serving")
    ours = {
        str(path.relative_to(repository))
        for package in packages
        for path in (repository / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert ours - held == set()
