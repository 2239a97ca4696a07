"""Training resumes after an interruption with identical results, and explains why it stops."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import tensorflow as tf
from repository import REPOSITORY
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_run import COUNT, SHAPE, image_set, random_autoencoder, seeded, train, train_families

from trainer.data.dataset import ImageSet
from trainer.fitting import training_loop
from trainer.fitting.callbacks import DivergedError
from trainer.fitting.checkpoint import checkpoint_folder, load_checkpoint
from trainer.settings.trainer import TrainerSettings

MANY = {
    "epochs": 3,
    "learning_rate_schedule": "cosine",
    "warmup_epochs": 0.5,
    "clip_norm": 1.0,
    "checkpoint_seconds": 1e-6,
}


class Interruption(Exception):  # noqa: N818
    pass


def interrupt_after(monkeypatch, saves):
    """Stop training at a checkpoint, counted from 1."""
    original, count = training_loop.Resumable._save, iter(range(saves))

    def save(self):
        original(self)
        if next(count, None) is None:
            raise Interruption

    monkeypatch.setattr(training_loop.Resumable, "_save", save)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """augmented or not -> (weights, curves, checkpoint); the first takes batches from tf.data, the second in XLA."""
    runs = {}
    for augmented in (False, True):
        folder = tmp_path_factory.mktemp("undisturbed")
        runs[augmented] = (*train(settings(augmented), checkpoint_folder=str(folder)), folder / "training.npz")
    return runs


def settings(augmented):
    return {**MANY, "augmentation": {"shift_px": 1, "brightness": 0.1}} if augmented else MANY


@pytest.mark.parametrize(("augmented", "saves"), [(True, 2), (False, 0), (False, 6)])
def test_an_interrupted_run_ends_with_the_weights_and_curves_of_an_uninterrupted_one(
    undisturbed, augmented, saves, tmp_path, monkeypatch
):
    """25 steps per epoch, 16 at a time: checkpoints lie within epochs, at their ends and after the last epoch."""
    with monkeypatch.context() as patch:
        interrupt_after(patch, saves)
        with pytest.raises(Interruption):
            train(settings(augmented), checkpoint_folder=str(tmp_path))
    weights, history = train(settings(augmented), checkpoint_folder=str(tmp_path))
    for ours, theirs in zip(weights, undisturbed[augmented][0], strict=True):
        assert np.array_equal(ours, theirs)
    assert history == undisturbed[augmented][1]


def test_images_on_disk_train_to_the_same_weights_as_in_memory(undisturbed, tmp_path):
    in_memory = image_set(COUNT)
    in_memory.images.tofile(tmp_path / "images")
    with (tmp_path / "images").open("rb") as file:
        weights, _ = train(MANY, images=ImageSet(COUNT, SHAPE, None, file))
    assert all(map(np.array_equal, weights, undisturbed[False][0]))


@pytest.mark.slow
def test_a_killed_process_resumes_to_the_same_weights(tmp_path):
    settings = {"epochs": 20}
    script = REPOSITORY / "tests" / "support" / "training_run.py"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}

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


@pytest.mark.slow
def test_two_processes_with_one_seed_train_the_same_weights_byte_for_byte(tmp_path):
    """A fully connected family, which is compiled, and a convolutional one, which is not."""
    presets = ["dense", "conv"]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other:
        theirs = other.submit(train_families, presets, str(tmp_path / "theirs"))
        ours = train_families(presets, str(tmp_path / "ours"))
        for preset in presets:
            pairs = list(zip(ours[preset], theirs.result()[preset], strict=True))
            assert [a.tobytes() == b.tobytes() for a, b in pairs] == [True] * len(pairs), preset
            assert all(a.any() for a, _ in pairs), preset  # trained, that is: biases begin as zeros


STOPPING = {"epochs": 30, "learning_rate": 0.3, "early_stopping_patience": 2}


@pytest.fixture(scope="module")
def stopped():
    weights, history = train(STOPPING)
    assert len(history["loss"]) < 30
    return weights, history


def test_early_stopping_resumes_too(stopped, tmp_path, monkeypatch):
    weights, history = stopped
    with monkeypatch.context() as patch:
        interrupt_after(patch, len(history["loss"]) - 2)
        with pytest.raises(Interruption):
            train(STOPPING, checkpoint_folder=str(tmp_path))
    resumed, history_resumed = train(STOPPING, checkpoint_folder=str(tmp_path))
    assert history_resumed == history
    assert all(map(np.array_equal, resumed, weights))


def test_the_best_weights_are_kept_even_after_the_last_epoch(stopped):
    weights, history = stopped
    kept, _ = train({**STOPPING, "epochs": len(history["loss"]) - 1})
    assert all(map(np.array_equal, kept, weights))


WORSENING = {"learning_rate": 0.3, "epochs": 2, "keep_best": True}


def test_keep_best_takes_the_epoch_with_the_lowest_validation_loss():
    kept, history = train({**WORSENING, "epochs": 8, "learning_rate": 0.1})
    best = int(np.argmin(history["val_loss"]))
    assert best < 7, "otherwise the last weights are the best ones"
    last_of_shorter, _ = train({"learning_rate": 0.1, "epochs": best + 1})
    assert all(map(np.array_equal, kept, last_of_shorter))


def excellent_start():
    """An autoencoder whose decoder starts at the images' mean, which a high learning rate can only worsen."""
    autoencoder = random_autoencoder()
    kernel, _ = autoencoder.decoder.layers[0].get_weights()
    mean = image_set(COUNT).images.mean(axis=0).ravel()
    autoencoder.decoder.layers[0].set_weights([0.0 * kernel, np.log(mean / (1 - mean))])
    return autoencoder


@pytest.mark.parametrize("saves", [None, 0, 3])
def test_a_start_that_no_epoch_improves_on_is_kept_also_after_an_interruption(saves, tmp_path, monkeypatch, caplog):
    start = seeded(excellent_start).model.get_weights()
    if saves is not None:
        with monkeypatch.context() as patch:
            interrupt_after(patch, saves)
            with pytest.raises(Interruption):
                train({**MANY, **WORSENING}, build=excellent_start, checkpoint_folder=str(tmp_path))
    kept, history = train({**MANY, **WORSENING}, build=excellent_start, checkpoint_folder=str(tmp_path))
    assert all(map(np.array_equal, kept, start))
    assert len(history["loss"]) == 2
    assert "no epoch had a clearly lower validation loss than the start" in caplog.text
    again, _ = train({**MANY, **WORSENING}, build=excellent_start, checkpoint_folder=str(tmp_path))
    assert all(map(np.array_equal, again, start)), "a finished checkpoint holds the kept weights"


def test_the_best_weights_are_kept_by_default_with_a_linear_path_or_a_patience_but_not_with_averaging():
    def keeps(**settings):
        return TrainerSettings.model_validate(settings).keeps_best

    assert keeps(preset="residual")
    assert keeps(preset="deep", linear_path=True)
    assert keeps(early_stopping_patience=2)
    assert not keeps(preset="residual", weight_averaging=0.9)
    assert not keeps(preset="residual", keep_best=False)
    with pytest.raises(ValueError, match=r"weight_averaging and trainer.keep_best cannot be combined"):
        keeps(weight_averaging=0.9, keep_best=True)


@pytest.mark.parametrize("damage", [lambda data: data[:-100], lambda data: data[:-2000] + b"?" + data[-1999:]])
def test_a_damaged_checkpoint_is_logged_and_ignored(undisturbed, damage, tmp_path, caplog):
    intact = undisturbed[True][2]
    assert load_checkpoint(str(intact.parent))[0].finished
    (tmp_path / intact.name).write_bytes(damage(intact.read_bytes()))
    assert load_checkpoint(str(tmp_path)) is None
    assert "damaged" in caplog.text
    assert "training starts from the beginning" in caplog.text


def test_a_checkpoint_belongs_to_one_configuration():
    assert checkpoint_folder("root", {"a": 1, "b": 2}) == checkpoint_folder("root", {"b": 2, "a": 1})
    assert checkpoint_folder("root", {"a": 1}) != checkpoint_folder("root", {"a": 2})


def test_the_average_of_the_weights_becomes_the_model():
    """With a momentum near 1, the average stays near the first weights."""
    start = seeded(random_autoencoder).model.get_weights()
    averaged = train({"weight_averaging": 0.9999})[0]
    plain = train({})[0]
    kernel = 0
    assert np.abs(averaged[kernel] - start[kernel]).max() < 0.05 * np.abs(plain[kernel] - start[kernel]).max()


def test_a_nan_loss_stops_training_with_remedies():
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
