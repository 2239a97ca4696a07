"""Faster tracing: TensorFlow's AutoGraph leaves Keras's own code alone."""

import logging

_LOG = logging.getLogger(__name__)


def keep_autograph_out_of_keras() -> None:
    """Exempt `tf_keras` from AutoGraph, as TensorFlow exempts `keras`; ten to twenty seconds a process.

    TensorFlow's list of packages that need no conversion was not extended when Keras 2 became `tf_keras`, so
    every Keras function on the way of a training step is parsed and rewritten, to no effect.
    """
    try:
        from tensorflow.python.autograph.core import config

        rule = config.DoNotConvert("tf_keras")
        if not any(str(existing) == str(rule) for existing in config.CONVERSION_RULES):
            config.CONVERSION_RULES = (rule, *config.CONVERSION_RULES)
    except (ImportError, AttributeError) as error:  # not public: without it, only slower
        _LOG.warning("AutoGraph's rules cannot be extended (%s); tracing will take longer", error)
