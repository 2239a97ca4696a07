"""Devices to train on: one, all of this machine, or those of several machines."""

import json
import os
from typing import Any

import tensorflow as tf

from runtime.errors import UserError
from trainer.data.dataset import WHOLE, Share
from trainer.settings.trainer import TrainerSettings


class DevicesError(UserError):
    """The settings do not fit the devices; the message says which value would."""


def cluster() -> dict[str, Any]:
    """TF_CONFIG, TensorFlow's description of the machines that train together; empty if there is only one.

    Example: {"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}. The chief is
    the task of type "chief" or, without one, worker 0. Raises DevicesError if the variable does not hold such JSON.
    """
    try:
        config: dict[str, Any] = json.loads(os.environ.get("TF_CONFIG") or "{}")
        addresses = config.get("cluster", {})
    except (ValueError, AttributeError):
        raise DevicesError(
            "the environment variable TF_CONFIG is not a JSON object; correct it (docs/training.md), or unset it"
        ) from None
    return config if sum(len(addresses.get(kind, ())) for kind in ("chief", "worker")) > 1 else {}


def is_chief() -> bool:
    """Whether this process writes the checkpoints and summaries of training."""
    config = cluster()
    if not config:
        return True
    task = config["task"]
    return task["type"] == "chief" or ("chief" not in config["cluster"] and task["index"] == 0)


def on_several_machines(settings: TrainerSettings) -> bool:
    """Whether to train on the machines in TF_CONFIG; raises DevicesError if `multi_worker` is set without them."""
    if settings.distribution == "multi_worker" and not cluster():
        raise DevicesError(
            "trainer.distribution is 'multi_worker', but the environment variable TF_CONFIG does not name at least two "
            "workers and this process's task; set it (docs/training.md), or use 'auto'"
        )
    return settings.distribution != "mirrored" and bool(cluster())


def local_strategy() -> tf.distribute.Strategy:
    """All GPUs of this machine or, without any, all logical CPU devices."""
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def share_of(strategy: tf.distribute.Strategy, batch_size: int) -> Share:
    """The part of every batch that this process reads; raises DevicesError if a batch cannot be divided evenly."""
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return WHOLE
    if batch_size % replicas:
        fitting = max(1, round(batch_size / replicas)) * replicas
        raise DevicesError(
            f"trainer.batch_size {batch_size} cannot be divided evenly among {replicas} devices; use {fitting}"
        )
    local = len(strategy.extended.worker_devices)
    config = cluster() if local < replicas else {}
    first = _worker_index(config) * local if config else 0
    return Share(replicas, first, local)


def _worker_index(config: dict[str, Any]) -> int:
    """This process's index among all workers, the chief first."""
    task = config["task"]
    return int(task["index"]) + (1 if "chief" in config["cluster"] and task["type"] != "chief" else 0)
