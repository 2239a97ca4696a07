"""The reference for a small run, a plain script as in a tutorial: `python -m bench.plain_digits EXPORT_FOLDER EPOCHS`.

Trains the network of `bench.configurations.digits` on the same number of images for as many epochs, evaluates it, and
exports it with its preprocessing.
"""

import os
import sys

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np
import tensorflow as tf
import tf_keras as keras
from sklearn.datasets import load_digits

TRAIN, HELD_OUT, SEED = 1419, 197, 42


def main(target: str, epochs: str) -> None:
    keras.utils.set_random_seed(SEED)
    images = (load_digits().images[..., None] / 16).astype(np.float32)
    train, held_out, test = np.split(images, [TRAIN, TRAIN + HELD_OUT])
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(8),
            layers.Dense(128, activation="relu"),
            layers.Dense(64, activation="sigmoid"),
            layers.Reshape((8, 8, 1)),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="mse")
    model.fit(train, train, validation_data=(held_out, held_out), batch_size=32, epochs=int(epochs), verbose=0)
    errors = ((test - model.predict(test, verbose=0)) ** 2).mean(axis=(1, 2, 3))
    print({"mean_error": float(errors.mean()), "p99_error": float(np.percentile(errors, 99))})

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")])
    def serve(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        def decode(encoded: tf.Tensor) -> tf.Tensor:
            return tf.cast(tf.ensure_shape(tf.io.decode_png(encoded, 1), (8, 8, 1)), tf.float32) / 255.0

        pixels = tf.map_fn(decode, image_bytes, fn_output_signature=tf.TensorSpec((8, 8, 1), tf.float32))
        reconstruction = model(pixels)
        return {"reconstruction": reconstruction, "error": tf.reduce_mean((pixels - reconstruction) ** 2, [1, 2, 3])}

    tf.saved_model.save(model, target, signatures=serve)


if __name__ == "__main__":
    main(*sys.argv[1:])
