"""One cluster for all tests."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes_cluster import Cluster, missing_tools, running_cluster
from repository import REPOSITORY


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    if missing := missing_tools():
        pytest.skip(f"a cluster needs {', '.join(missing)}")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "autoencoder-kubernetes"
    built = subprocess.run(
        ["bash", REPOSITORY / "tests" / "kubernetes" / "prepare.sh", cache, sys.executable],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    print(built.stdout)
    folder = Path("/var/tmp/autoencoder-kubernetes")  # noqa: S108 - a socket's path must be short
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with running_cluster(cache, folder) as running:
        yield running
    shutil.rmtree(folder, ignore_errors=True)
