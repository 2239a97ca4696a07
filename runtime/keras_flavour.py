"""Selects TensorFlow's Keras and its use of GPU memory; call before importing TensorFlow."""

import os


def use_keras_2() -> None:
    """Choose `tf_keras`, which tf.Transform and multi-worker training need, unless the environment overrides it.

    Every process allocates GPU memory only as needed, so that Transform and the Evaluator leave some to the Trainer.
    """
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
