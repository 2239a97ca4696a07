"""What the tests share: the environment that a run sets up, and small real data."""

import os
from pathlib import Path

from repository import REPOSITORY

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pytest

pytest_plugins = ["database_servers", "s3_server"]

ON_REQUEST = {
    "cluster": "starts servers of its own: make test-cluster",
    "image": "installs everything anew and needs root: make test-image",
    "faults": "takes minutes: make test-faults",
}


def pytest_collection_modifyitems(config, items):
    """Name what takes long or needs a special machine as skipped, unless it was asked for."""
    for marker, reason in ON_REQUEST.items():
        if marker in config.option.markexpr:
            continue
        for item in items:
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def sample_images() -> Path:
    """The shipped buttons: 370 JPEGs of 48 to 64 pixels in MVTec's layout."""
    return REPOSITORY / "sample_images"


@pytest.fixture(scope="session")
def mnist() -> Path:
    """The four original files, where MNIST_FOLDER names them."""
    if "MNIST_FOLDER" not in os.environ:
        pytest.skip("needs MNIST's original files: set MNIST_FOLDER to the folder of the four")
    return Path(os.environ["MNIST_FOLDER"])
