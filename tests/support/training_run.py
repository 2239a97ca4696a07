"""A small training run for tests, also as a process: `training_run.py OUTPUT SETTINGS DEVICES [CHECKPOINT]`."""

import json
import sys

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tfx.components.trainer.fn_args_utils import FnArgs

from trainer.data.dataset import ImageSet, PixelConstants
from trainer.families.autoencoder import Autoencoder
from trainer.families.registry import build_autoencoder
from trainer.fitting.distribution import local_strategy
from trainer.fitting.fit import fit
from trainer.fitting.tracing import keep_autograph_out
from trainer.fitting.training_loop import train_autoencoder
from trainer.settings.image import ImageSettings
from trainer.settings.trainer import TrainerSettings

keep_autograph_out()

SHAPE = (4, 4, 1)
COUNT = 200
UNIT = PixelConstants(np.zeros(1, np.float32), np.ones(1, np.float32))
SETTINGS = {"preset": "dense", "latent_dim": 3, "loss": "mse", "batch_size": 8, "epochs": 3, "learning_rate": 0.01}


def image_set(count, seed=0, shape=SHAPE):
    images = np.random.default_rng(seed).random((count, *shape), np.float32)
    return ImageSet(count, shape, images)


class Noise(keras.layers.Layer):
    """Adds different noise at every training step."""

    def __init__(self):
        super().__init__()
        self._generator = tf.random.Generator.from_seed(5)

    def call(self, inputs, training=None):
        return inputs + self._generator.normal(tf.shape(inputs), stddev=0.1) if training else inputs


def random_autoencoder():
    """An autoencoder with noise and batch normalisation, whose random states and moving averages matter."""
    layers = keras.layers
    encoder = keras.Sequential(
        [layers.Input(SHAPE), layers.Flatten(), Noise(), layers.Dense(3), layers.BatchNormalization()]
    )
    decoder = keras.Sequential(
        [layers.Input((3,)), layers.Dense(16, activation="sigmoid"), layers.Reshape(SHAPE)], name="decoder"
    )
    return Autoencoder(encoder, decoder, keras.Model(encoder.input, decoder(encoder.output)))


def seeded(build):
    keras.utils.set_random_seed(1)
    return build()


def train(settings, *, build=random_autoencoder, images=None, strategy=None, **kwargs):
    """(weights, loss curves)."""
    with (strategy or tf.distribute.get_strategy()).scope():
        autoencoder = seeded(build)
    history = train_autoencoder(
        autoencoder,
        images or image_set(COUNT),
        image_set(21, seed=1),
        UNIT,
        TrainerSettings.model_validate({**SETTINGS, **settings}),
        seed=3,
        **kwargs,
    )
    return autoencoder.model.get_weights(), history


def plain_autoencoder():
    """An autoencoder without randomness, and without layers that depend on how a batch is divided."""
    return build_autoencoder(ImageSettings(height_px=4, width_px=4), TrainerSettings.model_validate(SETTINGS))


def train_families(presets, folder):
    """Preset -> all weights after the Trainer's `fit`, with images large enough to be divided among threads."""
    weights = {}
    for preset in presets:
        config = {
            "trainer": {"preset": preset, "batch_size": 32, "epochs": 3},
            "image": {"height_px": 28, "width_px": 28},
            "seed": 3,
            "data_fingerprint": "",
            "source_fingerprint": "",
        }
        fn_args = FnArgs(custom_config=config, model_run_dir=f"{folder}/{preset}/model_run/1")
        autoencoder, _ = fit(fn_args, *(image_set(count, shape=(28, 28, 1)) for count in (COUNT, 21)), UNIT)
        weights[preset] = autoencoder.model.get_weights()
    return weights


def strategy_for(devices):
    """The strategy that `devices` names; it must be created before any other use of TensorFlow."""
    if devices == "workers":
        return tf.distribute.MultiWorkerMirroredStrategy()
    if devices == "mirrored":
        [cpu] = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpu, 2 * [tf.config.LogicalDeviceConfiguration()])
    return local_strategy()


if __name__ == "__main__":
    output, settings, devices, *folder = sys.argv[1:]
    strategy = strategy_for(devices)
    weights, _ = train(
        json.loads(settings),
        build=random_autoencoder if folder else plain_autoencoder,
        strategy=strategy,
        checkpoint_folder=folder[0] if folder else None,
    )
    np.savez(output, *weights)
