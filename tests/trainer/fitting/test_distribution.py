"""Training on several devices or in several processes gives the weights of training on one device."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from ports import free_port
from repository import REPOSITORY
from training_run import image_set, plain_autoencoder, train

from trainer.data.dataset import Share
from trainer.fitting.distribution import DevicesError, cluster, is_chief, on_several_machines
from trainer.settings.trainer import TrainerSettings

SCRIPT = REPOSITORY / "tests" / "support" / "training_run.py"
SETTINGS = {"batch_size": 8, "epochs": 1}


def run(output, devices, cluster_config=None):
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[2])}
    if cluster_config:
        environment["TF_CONFIG"] = json.dumps(cluster_config)
    return subprocess.Popen([sys.executable, str(SCRIPT), str(output), json.dumps(SETTINGS), devices], env=environment)


def weights(path):
    with np.load(path) as stored:
        return [stored[name] for name in stored.files]


def largest_difference(ours, theirs):
    return max(float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True))


@pytest.fixture(scope="module")
def alone():
    return train(SETTINGS, build=plain_autoencoder)[0]


@pytest.mark.slow
def test_two_workers_end_with_the_weights_of_one_process(alone, tmp_path):
    addresses = [f"localhost:{free_port()}" for _ in range(2)]
    paths = [tmp_path / f"worker{index}.npz" for index in range(2)]
    processes = [
        run(path, "workers", {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})
        for index, path in enumerate(paths)
    ]
    assert [process.wait() for process in processes] == [0, 0]
    first, second = map(weights, paths)
    assert largest_difference(first, second) == 0.0
    assert largest_difference(first, alone) < 1e-4


@pytest.mark.slow
def test_two_devices_of_one_machine_end_with_the_weights_of_one(alone, tmp_path):
    path = tmp_path / "weights.npz"
    assert run(path, "mirrored").wait() == 0
    assert largest_difference(weights(path), alone) < 1e-4


def test_the_shares_of_a_batch_add_up_to_the_batch():
    images = image_set(20)
    whole = list(images.training_batches(lambda step, x: (step, x), 6, seed=1, epochs=2))
    shares = [
        list(images.training_batches(lambda step, x: (step, x), 6, seed=1, epochs=2, share=Share(3, first, local)))
        for first, local in ((0, 1), (1, 2))
    ]
    assert len(whole) == 6
    for number, (step, batch) in enumerate(whole):
        parts = [shares[0][number], *shares[1][2 * number : 2 * number + 2]]
        assert np.array_equal(np.concatenate([part for _, part in parts]), batch)
        assert {int(part_step) for part_step, _ in parts} == {int(step)} == {number}


def test_held_out_images_are_divided_evenly_by_repeating_the_first():
    images = image_set(7)
    parts = [list(images.batches(4, share=Share(2, first)).take(2)) for first in (0, 1)]
    seen = np.concatenate([parts[0][0], parts[1][0], parts[0][1], parts[1][1]])
    assert np.array_equal(seen, np.concatenate([images.images, images.images[:1]]))


@pytest.mark.parametrize(
    ("task", "kinds", "chief"),
    [
        ({"type": "worker", "index": 0}, {"worker": ["a:1", "b:1"]}, True),
        ({"type": "worker", "index": 1}, {"worker": ["a:1", "b:1"]}, False),
        ({"type": "worker", "index": 0}, {"chief": ["a:1"], "worker": ["b:1"]}, False),
        ({"type": "chief", "index": 0}, {"chief": ["a:1"], "worker": ["b:1"]}, True),
        ({"type": "worker", "index": 0}, {"worker": ["a:1"]}, True),
    ],
)
def test_exactly_one_worker_is_the_chief(task, kinds, chief, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": kinds, "task": task}))
    assert is_chief() is chief
    assert bool(cluster()) is (sum(map(len, kinds.values())) > 1)


def test_multi_worker_without_tf_config_is_an_error(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert not on_several_machines(TrainerSettings.model_validate({}))
    with pytest.raises(DevicesError, match="TF_CONFIG"):
        on_several_machines(TrainerSettings.model_validate({"distribution": "multi_worker"}))


@pytest.mark.parametrize("value", ["{'cluster': {}}", "[]"])
def test_a_malformed_tf_config_is_named(value, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", value)
    with pytest.raises(DevicesError, match="TF_CONFIG is not a JSON object"):
        on_several_machines(TrainerSettings.model_validate({}))
