"""Which Keras TensorFlow brings, and how much of a GPU it takes; to be settled before it is imported."""

import os


def use_keras_2() -> None:
    """Choose `tf_keras`, which tf.Transform and multi-worker training need, unless the environment says otherwise.

    Every process takes GPU memory as it needs it: Transform and the Evaluator leave the Trainer its share.
    """
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
