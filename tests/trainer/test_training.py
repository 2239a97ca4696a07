"""Training goes on after an interruption as if there had been none, and says why it stops."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_run import train

from trainer import training
from trainer.callbacks import DivergedError
from trainer.checkpoint import checkpoint_folder

MANY = {
    "epochs": 3,
    "learning_rate_schedule": "cosine",
    "warmup_epochs": 0.5,
    "clip_norm": 1.0,
    "augmentation": {"shift_px": 1, "brightness": 0.1},
    "checkpoint_seconds": 1e-6,
}


class Interruption(Exception):  # noqa: N818
    pass


def interrupt_after(monkeypatch, saves):
    """Stop training at its so-many-th checkpoint."""
    original, count = training.Resumable._save, iter(range(saves))

    def save(self):
        original(self)
        if next(count, None) is None:
            raise Interruption

    monkeypatch.setattr(training.Resumable, "_save", save)


@pytest.fixture(scope="module")
def undisturbed():
    return train(MANY)


@pytest.mark.parametrize("saves", [0, 2, 6])
def test_an_interrupted_run_ends_with_the_weights_and_curves_of_an_undisturbed_one(
    undisturbed, saves, tmp_path, monkeypatch
):
    """25 steps an epoch, 16 at a time: the checkpoints lie within epochs, at their ends, and after the last."""
    with monkeypatch.context() as patch:
        interrupt_after(patch, saves)
        with pytest.raises(Interruption):
            train(MANY, checkpoint_folder=str(tmp_path))
    weights, history = train(MANY, checkpoint_folder=str(tmp_path))
    for ours, theirs in zip(weights, undisturbed[0], strict=True):
        assert np.array_equal(ours, theirs)
    assert history == undisturbed[1]


def test_a_killed_process_is_continued_to_the_same_weights(tmp_path):
    settings = {"epochs": 40}
    script = Path(__file__).parent / "training_run.py"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}

    def start(output, *folder):
        command = [sys.executable, str(script), str(tmp_path / output), json.dumps(settings), "one", *folder]
        return subprocess.Popen(command, env=environment)

    folder = tmp_path / "checkpoint"
    process = start("killed", str(folder))
    saved = folder / "training.npz"
    while not saved.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert saved.exists()
    assert not (tmp_path / "killed.npz").exists()

    resumed, _ = train(settings, checkpoint_folder=str(folder))
    undisturbed, _ = train(settings)
    for ours, theirs in zip(resumed, undisturbed, strict=True):
        assert np.array_equal(ours, theirs)


def test_early_stopping_is_continued_too(tmp_path, monkeypatch):
    settings = {"epochs": 30, "learning_rate": 0.3, "early_stopping_patience": 2}
    weights, history = train(settings)
    assert len(history["loss"]) < 30
    with monkeypatch.context() as patch:
        interrupt_after(patch, len(history["loss"]) - 2)
        with pytest.raises(Interruption):
            train(settings, checkpoint_folder=str(tmp_path))
    resumed, history_resumed = train(settings, checkpoint_folder=str(tmp_path))
    assert history_resumed == history
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(resumed, weights, strict=True))


def test_the_best_epochs_weights_are_kept_also_where_the_last_epoch_is_reached():
    """Too high a learning rate: the second epoch is worse than the first, and patience outlasts the third."""
    settings = {"learning_rate": 0.3, "early_stopping_patience": 9}
    weights, history = train({**settings, "epochs": 3})
    assert len(history["loss"]) == 3
    best = int(np.argmin(history["val_loss"])) + 1
    assert best < 3
    assert all(map(np.array_equal, weights, train({**settings, "epochs": best})[0]))


@pytest.mark.parametrize("damage", [lambda data: data[:-100], lambda data: data[:-2000] + b"?" + data[-1999:]])
def test_a_damaged_checkpoint_is_told_and_training_starts_anew(undisturbed, damage, tmp_path, caplog):
    train({**MANY, "epochs": 1, "warmup_epochs": 0}, checkpoint_folder=str(tmp_path))
    path = tmp_path / "training.npz"
    path.write_bytes(damage(path.read_bytes()))
    weights, _ = train(MANY, checkpoint_folder=str(tmp_path))
    assert "damaged" in caplog.text
    assert "training starts anew" in caplog.text
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(weights, undisturbed[0], strict=True))


def test_a_checkpoint_belongs_to_one_configuration():
    assert checkpoint_folder("root", {"a": 1, "b": 2}) == checkpoint_folder("root", {"b": 2, "a": 1})
    assert checkpoint_folder("root", {"a": 1}) != checkpoint_folder("root", {"a": 2})


def test_the_average_of_the_weights_becomes_the_model():
    """With a momentum near 1, the average stays near the first weights."""
    start = train({"epochs": 1, "learning_rate": 1e-12})[0]
    averaged = train({"weight_averaging": 0.9999})[0]
    plain = train({})[0]
    kernel = 0
    assert np.abs(averaged[kernel] - start[kernel]).max() < 0.05 * np.abs(plain[kernel] - start[kernel]).max()


def test_a_loss_that_is_no_number_stops_training_and_names_the_remedies():
    with pytest.raises(DivergedError, match=r"became nan in epoch 1.*learning_rate.*warmup_epochs.*clip_norm"):
        train({"learning_rate": float("inf")})


def test_tensorboard_shows_losses_rates_pictures_and_latents(tmp_path):
    train({"learning_rate_schedule": "cosine"}, log_dir=str(tmp_path))
    shown = {
        folder: EventAccumulator(str(tmp_path / folder)).Reload() for folder in ("train", "validation", "pictures")
    }
    tags = {folder: events.Tags()["tensors"] for folder, events in shown.items()}
    assert {"epoch_loss", "epoch_error", "epoch_learning_rate"} <= set(tags["train"])
    assert "epoch_loss" in tags["validation"]
    assert {"images per second", "originals over reconstructions", "latent"} <= set(tags["pictures"])
    rates = [float(tf.make_ndarray(event.tensor_proto)) for event in shown["train"].Tensors("epoch_learning_rate")]
    assert rates == pytest.approx(
        [0.01 * (1 + np.cos(np.pi * epoch / 3)) / 2 for epoch in (1, 2, 3)], rel=1e-3, abs=1e-9
    )
