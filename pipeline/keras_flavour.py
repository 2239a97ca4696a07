"""Which Keras TensorFlow brings; to be settled before it is imported."""

import os


def use_keras_2() -> None:
    """Choose `tf_keras`, which tf.Transform and multi-worker training need, unless the environment says otherwise."""
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
