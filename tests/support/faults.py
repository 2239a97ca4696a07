"""What goes wrong: each function prepares it in the process that is about to run the command line."""

import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

WHERE_IT_WRITES = {
    "Trainer": "artifacts/Trainer/checkpoints/*/training.npz",  # in the middle of its work, not at its begin
    "Pusher": "serving/.*.partial/**/*",
}


def set_variable(name: str, value: str) -> None:
    """No fault: an environment variable of this process alone."""
    os.environ[name] = value


def kill_at_first_file(component: str, folder: Path) -> None:
    """SIGKILL as soon as the component has written a file."""
    _when_it_runs(component, lambda info: _watch(_files_of(component, info.execution_id, folder)))


def kill_before_published(component: str) -> None:
    """SIGKILL when the component has written everything, and the metadata store knows nothing of it."""
    from tfx.orchestration.portable.launcher import Launcher

    publish = Launcher._publish_successful_execution

    def kill_or_publish(self: Any, *arguments: Any, **named: Any) -> None:
        if self._pipeline_node.node_info.id == component:
            os.kill(os.getpid(), signal.SIGKILL)
        publish(self, *arguments, **named)

    Launcher._publish_successful_execution = kill_or_publish


def kill_after(component: str) -> None:
    """SIGKILL when the component's results are published, before the run goes on."""
    from tfx.orchestration.portable.launcher import Launcher

    launch = Launcher.launch

    def launch_and_kill(self: Any) -> Any:
        launched = launch(self)
        if self._pipeline_node.node_info.id == component:
            os.kill(os.getpid(), signal.SIGKILL)
        return launched

    Launcher.launch = launch_and_kill


def wait_for_locks_only(seconds: float) -> None:
    """Not a minute, as a user's run does."""
    from pipeline.metadata import store as metadata_store

    metadata_store.LOCK_TIMEOUT_S = seconds


def start_when(component: str, command: list[str]) -> None:
    """Start another program when the component starts, and go on once it has said something."""

    def start(_: Any) -> None:
        program = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert program.stdout
        program.stdout.readline()

    _when_it_runs(component, start)


def hold(component: str, seconds: float) -> None:
    """Make the component take so much longer."""
    _when_it_runs(component, lambda _: time.sleep(seconds))


def limit_memory(component: str, spare_mb: int) -> None:
    """No more than `spare_mb` of address space beyond what is in use when the component starts."""

    def limit(_: Any) -> None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + spare_mb * 2**20, resource.RLIM_INFINITY))

    _when_it_runs(component, limit)


def train_on(kind: str) -> None:
    """The Trainer gets other images than the rest of the pipeline: `shuffled`, `noise` or `other` ones."""
    from trainer.fitting import arguments

    load = arguments.load_images
    random = np.random.default_rng(0)

    def load_others(*positional: Any, **named: Any) -> Any:
        from dataclasses import replace

        loaded = load(*positional, **named)
        return replace(loaded, images=_others(kind, loaded.images, random))

    arguments.load_images = load_others


def spoil_a_weight() -> None:
    """One weight of the trained model is no number."""
    from trainer.fitting import fit as fitting  # not `trainer.module`, which TFX loads anew

    fit = fitting.fit

    def fit_and_spoil(*arguments: Any) -> Any:
        autoencoder, history = fit(*arguments)
        weights = autoencoder.model.get_weights()
        weights[-1].flat[0] = np.nan
        autoencoder.model.set_weights(weights)
        return autoencoder, history

    fitting.fit = fit_and_spoil


def preprocess_otherwise(door: str) -> None:
    """Half the contrast that Transform gives: in the `served` door alone, or in `every` door of the model."""
    from trainer import calibrator
    from trainer.export import trained_model

    if door == "every":
        decoder = trained_model.pixels_decoder
        trained_model.pixels_decoder = lambda *arguments: _halved(decoder(*arguments))
        return

    import tensorflow as tf

    signatures = calibrator.ServedModel.signatures

    def signatures_with_a_broken_one(self: Any) -> Any:
        doors = signatures(self)
        decode, spec = _halved(self.trained.decode_pixels), tf.TensorSpec([None], tf.string, "image_bytes")
        broken = tf.function(lambda image_bytes: self._everything(decode(image_bytes)), autograph=False)
        return {**doors, "serving_default": broken.get_concrete_function(spec)}

    calibrator.ServedModel.signatures = signatures_with_a_broken_one


def _halved(decode: Any) -> Any:
    return lambda encoded: 0.25 + 0.5 * decode(encoded)


def _others(kind: str, images: Any, random: Any) -> Any:
    """[N, H, W, C] in place of `images`."""
    if kind == "shuffled":
        return random.permuted(images.reshape(len(images), -1), axis=1).reshape(images.shape)
    if kind == "noise":
        return random.random(images.shape, np.float32)
    ramp = np.linspace(0, 1, images.shape[2], dtype=np.float32)[None, None, :, None]
    return np.clip(ramp + random.normal(0, 0.1, (len(images), 1, 1, 1)), 0, 1).astype(np.float32) + 0 * images


def _when_it_runs(component: str, act: Any) -> None:
    from tfx.orchestration.portable.launcher import Launcher

    run = Launcher._run_executor

    def act_and_run(self: Any, info: Any) -> Any:
        if self._pipeline_node.node_info.id == component:
            act(info)
        return run(self, info)

    Launcher._run_executor = act_and_run


def _files_of(component: str, execution: int, folder: Path) -> Iterator[Path]:
    while True:
        yield from folder.glob(WHERE_IT_WRITES.get(component, f"artifacts/{component}/*/{execution}/**/*"))
        time.sleep(0.001)


def _watch(paths: Iterator[Path]) -> None:
    def kill() -> None:
        next(path for path in paths if path.is_file())
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
