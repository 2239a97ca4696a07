"""The reference for a whole run: one plain script, as in a tutorial.

Loads MNIST, trains the dense autoencoder of configs/mnist-dense.yaml, evaluates it, and exports it with its
preprocessing: `python -m bench.plain_script MNIST_FOLDER EXPORT_FOLDER EPOCHS`.
"""

import os
import sys
from pathlib import Path

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras

from components.sources.idx import read_idx

Images = npt.NDArray[np.float32]
LATENT_DIM, BATCH_SIZE, SEED = 32, 128, 42


def load(folder: Path, name: str) -> Images:
    """[N, 28, 28, 1] float32 in [0, 1]."""
    path = next(path for path in (folder / name, folder / f"{name}.gz") if path.is_file())
    return (read_idx(str(path), dimensions=3)[..., None] / np.float32(255)).astype(np.float32)


def build() -> keras.Model:
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((28, 28, 1)),
            layers.Flatten(),
            layers.Dense(LATENT_DIM, activation="relu"),
            layers.Dense(28 * 28, activation="sigmoid"),
            layers.Reshape((28, 28, 1)),
        ]
    )


def evaluate(model: keras.Model, images: Images) -> dict[str, float]:
    """Mean and 99th percentile of the images' mean squared errors."""
    errors = ((images - model.predict(images, batch_size=256, verbose=0)) ** 2).mean(axis=(1, 2, 3))
    return {"mean_error": float(errors.mean()), "p99_error": float(np.percentile(errors, 99))}


def export(model: keras.Model, folder: str) -> None:
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")])
    def serve(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        def decode(encoded: tf.Tensor) -> tf.Tensor:
            return tf.cast(tf.ensure_shape(tf.io.decode_png(encoded, 1), (28, 28, 1)), tf.float32) / 255.0

        images = tf.map_fn(decode, image_bytes, fn_output_signature=tf.TensorSpec((28, 28, 1), tf.float32))
        reconstruction = model(images)
        return {"reconstruction": reconstruction, "error": tf.reduce_mean((images - reconstruction) ** 2, [1, 2, 3])}

    tf.saved_model.save(model, folder, signatures=serve)


def main(mnist: str, target: str, epochs: str) -> None:
    keras.utils.set_random_seed(SEED)
    pixels = load(Path(mnist), "train-images-idx3-ubyte")
    held_out = len(pixels) // 10
    model = build()
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="binary_crossentropy")
    model.fit(
        pixels[held_out:],
        pixels[held_out:],
        validation_data=(pixels[:held_out], pixels[:held_out]),
        batch_size=BATCH_SIZE,
        epochs=int(epochs),
        verbose=0,
    )
    print(evaluate(model, load(Path(mnist), "t10k-images-idx3-ubyte")))
    export(model, target)


if __name__ == "__main__":
    main(*sys.argv[1:])
