"""A package of ours that another distribution replaces is detected before it is imported."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from repository import REPOSITORY

from pipeline.local.doctor import BROKEN, _own_packages
from pipeline.packages import PACKAGES, collision

SETUP = 'from setuptools import setup; setup(name="schema", version="0.7.7", packages=["schema"])'
OFFLINE = ("--no-index", "--no-deps", "--no-build-isolation", "--no-compile", "--ignore-installed", "--quiet")


def install(sources: Path, prefix: Path) -> Path:
    """Build and install a wheel; returns the folder that holds its packages."""
    command = [sys.executable, "-m", "pip", "install", *OFFLINE, "--prefix", str(prefix), str(sources)]
    subprocess.run(command, check=True)
    [site_packages] = prefix.glob("lib/python3.*/site-packages")
    return site_packages


def autoencoder(*path: Path) -> "subprocess.CompletedProcess[str]":
    """`autoencoder --help` with these folders first on the path."""
    command = [sys.executable, "-m", "pipeline", "--help"]
    environment = {"PYTHONPATH": ":".join(map(str, path))}
    return subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """The sources of another distribution, `schema`."""
    folder = tmp_path / "foreign"
    (folder / "schema").mkdir(parents=True)
    (folder / "schema" / "__init__.py").write_text("class Schema: ...\n", encoding="utf-8")
    (folder / "setup.py").write_text(SETUP, encoding="utf-8")
    return folder


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """A copy of our sources, since a build writes into them."""
    folder = tmp_path / "ours"
    for package in PACKAGES:
        shutil.copytree(REPOSITORY / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(REPOSITORY / file, folder)
    return folder


def test_the_packages_of_this_checkout_are_our_own() -> None:
    assert collision() == ""


def test_the_checked_packages_are_those_that_are_installed() -> None:
    found = {path.parent.name for path in REPOSITORY.glob("*/__init__.py")} - {"bench", "tests"}
    assert set(PACKAGES) == found


def test_a_foreign_package_that_precedes_ours_on_the_path_is_named(foreign: Path, tmp_path: Path) -> None:
    site_packages = install(foreign, tmp_path / "prefix")
    ran = autoencoder(site_packages, REPOSITORY)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == (
        f"the package 'schema' ({site_packages}/schema/__init__.py) belongs to schema 0.7.7, not to "
        "tfx-image-autoencoder; install tfx-image-autoencoder in a virtual environment of its own: "
        "python3 -m venv ENV\n"
    )


def test_a_foreign_package_that_overwrites_ours_is_named(foreign: Path, ours: Path, tmp_path: Path) -> None:
    site_packages = install(ours, tmp_path / "prefix")
    alone = autoencoder(site_packages)
    assert (alone.returncode, alone.stderr) == (0, "")
    install(foreign, tmp_path / "prefix")
    ran = autoencoder(site_packages)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"the package 'schema' ({site_packages}/schema/__init__.py) belongs to schema 0.7.7")


def test_doctor_names_the_other_distribution(foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(install(foreign, tmp_path / "prefix")))
    finding = _own_packages()
    assert finding.state == BROKEN
    assert finding.detail == "'schema' is also installed by schema 0.7.7"
    assert "virtual environment" in finding.remedy
