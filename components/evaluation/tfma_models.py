"""Hands TFMA the models that are already loaded.

TFX imports this module a second time, so the cache lives in a module of its own.
"""

from typing import Any

import tensorflow as tf
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.api import types

from runtime.loaded_models import loaded


def custom_eval_shared_model(*, eval_saved_model_path: str, **options: Any) -> Any:
    """TFX's hook: describes the model to TFMA, which loads it with `loaded`, here and in remote Beam workers."""
    loader = types.ModelLoader(lambda: loaded(eval_saved_model_path), [tf.saved_model.SERVING])
    return tfma.default_eval_shared_model(eval_saved_model_path, custom_model_loader=loader, **options)
