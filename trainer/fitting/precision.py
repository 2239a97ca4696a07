"""Training in 16 bits where devices have them.

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
"""Compute capability: Ampere."""
_FLOAT16_SINCE = (7, 0)
"""Volta, the first with tensor cores."""


@contextmanager
def computing_in(precision: Literal["float32", "mixed"]) -> Iterator[str]:
    """The layers built within compute so; yields Keras's name of the policy that the devices allow."""
    policy = FLOAT32 if precision == "float32" else mixed_policy()
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(policy)
    try:
        yield policy
    finally:
        keras.mixed_precision.set_global_policy(before)


def mixed_policy() -> str:
    """What all GPUs have: bfloat16, with float32's range; else float16; else, and on CPUs, float32, with a warning."""
    details = tf.config.experimental.get_device_details
    gpus = tf.config.list_physical_devices("GPU")
    weakest = min((details(gpu).get("compute_capability", (0, 0)) for gpu in gpus), default=(0, 0))
    if weakest >= _BFLOAT16_SINCE:
        return BFLOAT16
    if weakest >= _FLOAT16_SINCE:
        return FLOAT16
    _LOG.warning(
        "trainer.precision: 'mixed' trains in float32 here: not every device is a GPU that computes in 16 bits"
    )
    return FLOAT32
