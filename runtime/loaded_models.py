"""SavedModels, each loaded once for all checks of a model: loading takes longer than most checks."""

from typing import Any

import tensorflow as tf

_LOADED: dict[str, Any] = {}


def loaded(folder: str) -> Any:
    """The SavedModel in the folder; this process keeps it until `forget_models`."""
    if folder not in _LOADED:
        _LOADED[folder] = tf.saved_model.load(folder)
    return _LOADED[folder]


def forget_models(*, but: str | None = None) -> None:
    """Free all models, except the one in the folder `but`, which the next component in this process needs."""
    for folder in [folder for folder in _LOADED if folder != but]:
        del _LOADED[folder]
