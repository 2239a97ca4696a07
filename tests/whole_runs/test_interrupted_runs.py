"""Whole runs that are killed or never start, and the original files of MNIST."""

import os
import signal
import subprocess
import time

import pytest
from command_line import REPOSITORY, autoencoder, command
from local_runs import BAD_USAGE, COMPONENTS, REFUSED, names_that, run

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_a_run_killed_in_the_trainer_continues_after_the_last_finished_component(tmp_path, sent):
    settings = ["--set", f"root={tmp_path}", "--set", "trainer.epochs=100000"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    started = subprocess.Popen(command("run", "configs/digits.yaml", *settings), cwd=REPOSITORY, env=environment)
    model_runs = tmp_path / "digits/artifacts/Trainer/model_run"
    deadline = time.monotonic() + 300
    while not list(model_runs.glob("*/train/*")) and time.monotonic() < deadline:
        assert started.poll() is None
        time.sleep(0.5)
    started.send_signal(sent)
    started.wait(60)
    [unfinished] = model_runs.iterdir()

    _, document = run("configs/digits.yaml", tmp_path, "trainer.epochs=5", "evaluation.thresholds=[]")
    assert names_that("cached", document) == COMPONENTS[:5]
    assert names_that("ran", document) == COMPONENTS[5:]
    assert not unfinished.exists()


def test_original_mnist_files(tmp_path, mnist):
    overrides = [f"data.path={mnist}", "data.max_images=2000", "trainer.epochs=1", "evaluation.thresholds=[]"]
    code, document = run("configs/mnist-dense.yaml", tmp_path, *overrides)
    assert code == REFUSED
    assert document["metrics"]["example_count"] == 2000


@pytest.mark.parametrize(
    ("overrides", "culprit"),
    [
        (["data.source=folder", "data.path={empty}"], "{empty}: contains no images; found nothing"),
        (["data.source=folder", "data.path={empty}/missing"], "{empty}/missing: no such folder"),
        (["data.source=idx", "data.path={empty}"], "{empty}: contains no IDX images"),
        (["image.height_px=0"], "image.height_px: 0"),
        (["trainer.preset=dance"], "trainer.preset: 'dance'"),
        (["root=/proc/nowhere"], "/proc/nowhere/digits is not writable"),
    ],
)
def test_bad_input_is_reported_and_nothing_is_started(tmp_path, overrides, culprit):
    empty = tmp_path / "empty"
    empty.mkdir()
    settings = [a for o in (f"root={tmp_path / 'runs'}", *overrides) for a in ("--set", o.format(empty=empty))]
    code, _, stderr = autoencoder("run", "configs/digits.yaml", *settings)
    assert code == BAD_USAGE
    assert culprit.format(empty=empty) in stderr
    assert "Traceback" not in stderr
    assert [path.name for path in (tmp_path / "runs").glob("digits/*")] in ([], [".lock"])
