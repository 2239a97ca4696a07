"""The wheel that setup.py describes is reproducible, complete and typed."""

import hashlib
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from repository import REPOSITORY

PACKAGES = ("schema", "runtime", "images", "components", "trainer", "pipeline", "serving")
GIT = ["git", "-c", "user.name=Test", "-c", "user.email=test@example.com"]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose only commit holds the files of the working tree, committed or not."""
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
    """The wheel that the script builds from `source` under that umask."""
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


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(repository, tmp_path_factory.mktemp("wheel"), umask=0o022)


def test_the_wheel_contains_every_module_and_data_file(repository: Path, wheel: Path) -> None:
    contained = set(zipfile.ZipFile(wheel).namelist())
    files = {
        str(path.relative_to(repository))
        for package in PACKAGES
        for path in (repository / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert files - contained == set()


def test_mypy_finds_the_types_of_every_installed_package(wheel: Path, tmp_path: Path) -> None:
    """The environment has nothing but the wheel, so mypy cannot find the packages anywhere else."""
    environment = tmp_path / "environment"
    venv.create(environment, symlinks=True)
    [site_packages] = environment.glob("lib/python*/site-packages")
    zipfile.ZipFile(wheel).extractall(site_packages)
    script = tmp_path / "script.py"
    script.write_text(f"import {', '.join(PACKAGES)}\nfrom schema.features import IMAGE\nreveal_type(IMAGE)\n")
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(environment / "bin" / "python")]
    checked = subprocess.run([*mypy, str(script)], cwd=tmp_path, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "Literal['image']" in checked.stdout
