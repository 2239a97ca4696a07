"""SavedModels, each loaded once for all checks of an analysis: loading takes longer than most checks."""

import functools
from typing import Any

import tensorflow as tf


@functools.cache
def loaded(folder: str) -> Any:
    """The SavedModel in the folder; this process keeps it until `loaded.cache_clear()`."""
    return tf.saved_model.load(folder)
