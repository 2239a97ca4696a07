"""Shared by all tests: the environment variables that a run sets, markers, and small real data."""

import os
from pathlib import Path

from repository import REPOSITORY

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pytest

pytest_plugins = ["database_servers", "s3_server"]

ON_REQUEST = {
    "cluster": "starts clusters; run make test-cluster",
    "kubernetes": "builds and starts Kubernetes, and needs root; run make test-kubernetes",
    "image": "installs everything again and needs root; run make test-image",
    "faults": "takes minutes; run make test-faults",
}


def pytest_collection_modifyitems(config, items):
    """Skip tests that take long or need a special machine, unless `-m` selects them."""
    for marker, reason in ON_REQUEST.items():
        if marker in config.option.markexpr:
            continue
        for item in items:
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def sample_images() -> Path:
    """The sample pictures of buttons: 370 JPEGs of 48 to 64 pixels in MVTec AD's layout."""
    return REPOSITORY / "sample_images"


@pytest.fixture(scope="session")
def mnist() -> Path:
    """The folder of the four original files; skips the test unless MNIST_FOLDER names it."""
    if "MNIST_FOLDER" not in os.environ:
        pytest.skip("needs MNIST's four original files; set MNIST_FOLDER to their folder")
    return Path(os.environ["MNIST_FOLDER"])
