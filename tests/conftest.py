"""What the tests share: the environment that a run sets up, and small real data."""

import os
from pathlib import Path

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pytest

REPOSITORY = Path(__file__).parent.parent
MNIST = Path(os.environ.get("MNIST_FOLDER", REPOSITORY.parent / "shared" / "data" / "mnist"))


def pytest_collection_modifyitems(config, items):
    """Name what needs servers of its own as skipped, unless it was asked for."""
    if "cluster" in config.option.markexpr:
        return
    for item in items:
        if item.get_closest_marker("cluster"):
            item.add_marker(pytest.mark.skip(reason="starts servers of its own: make test-cluster"))


@pytest.fixture(scope="session")
def sample_images() -> Path:
    """The shipped buttons: 370 JPEGs of 48 to 64 pixels in MVTec's layout."""
    return REPOSITORY / "sample_images"


@pytest.fixture(scope="session")
def mnist() -> Path:
    """The four original files, where MNIST_FOLDER names them."""
    if not MNIST.is_dir():
        pytest.skip("full MNIST not found; set MNIST_FOLDER to the folder of its four files")
    return MNIST
