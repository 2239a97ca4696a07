"""Speeds up tracing by exempting Keras's code and our own from TensorFlow's AutoGraph."""

import logging

_LOG = logging.getLogger(__name__)
_EXEMPT = ("tf_keras", "trainer")


def keep_autograph_out() -> None:
    """Exempt `tf_keras` from AutoGraph, as TensorFlow exempts `keras`; saves ten to twenty seconds per process.

    TensorFlow's list of packages that need no conversion was not extended when Keras 2 became `tf_keras`, so AutoGraph
    would parse and rewrite every Keras function that a training step calls, to no effect. Our own functions need no
    conversion either: they use TensorFlow's control flow where a condition is a tensor.
    """
    try:
        from tensorflow.python.autograph.core import config

        present = set(map(str, config.CONVERSION_RULES))
        rules = [config.DoNotConvert(package) for package in _EXEMPT]
        config.CONVERSION_RULES = (*(rule for rule in rules if str(rule) not in present), *config.CONVERSION_RULES)
    except (ImportError, AttributeError) as error:  # not a public API; training works without it, only slower
        _LOG.warning("cannot extend AutoGraph's rules (%s); tracing takes longer", error)
