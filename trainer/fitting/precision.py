"""Mixed precision: training in 16 bits on devices that support it.

Micikevicius et al. 2018, "Mixed Precision Training", arXiv:1710.03740.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import tensorflow as tf
import tf_keras as keras

_LOG = logging.getLogger(__name__)
FLOAT32 = "float32"
BFLOAT16 = "mixed_bfloat16"
FLOAT16 = "mixed_float16"
_BFLOAT16_SINCE = (8, 0)
"""Compute capability of Ampere."""
_FLOAT16_SINCE = (7, 0)
"""Compute capability of Volta, the first with tensor cores."""


@contextmanager
def computing_in(precision: Literal["float32", "mixed"]) -> Iterator[str]:
    """Layers built in this context compute in this precision; yields the name of the Keras policy in use."""
    policy = FLOAT32 if precision == "float32" else mixed_policy()
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(policy)
    try:
        yield policy
    finally:
        keras.mixed_precision.set_global_policy(before)


def mixed_policy() -> str:
    """The best policy that all GPUs support: bfloat16, which has float32's range, or float16; otherwise float32."""
    details = tf.config.experimental.get_device_details
    gpus = tf.config.list_physical_devices("GPU")
    weakest = min((details(gpu).get("compute_capability", (0, 0)) for gpu in gpus), default=(0, 0))
    if weakest >= _BFLOAT16_SINCE:
        return BFLOAT16
    if weakest >= _FLOAT16_SINCE:
        return FLOAT16
    _LOG.warning(
        "trainer.precision is 'mixed', but not every device is a GPU that computes in 16 bits; training uses float32"
    )
    return FLOAT32
