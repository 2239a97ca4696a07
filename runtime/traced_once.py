"""Functions whose graph is traced once and then called by every graph that needs it.

Building a graph from Python costs about as much per operation as a small run spends on arithmetic in an epoch. Without
this, each signature of a SavedModel holds its own copy of what it has in common with the others.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def traced_once(body: Callable[..., Any]) -> Callable[..., Any]:
    """`body`, a function of nested tensors whose first axis has a row for each image, for any number of rows.

    It must create no variables; what keeps its variables alive and saves them is its caller. Works eagerly and in
    graphs, and gives the results of `body` to the last bit in a graph.
    """
    function = tf.function(body, autograph=False)

    def call(*arguments: Any) -> Any:
        specs = tf.nest.map_structure(_of_any_number, arguments)
        return function.get_concrete_function(*specs)(*arguments)

    return call


def _of_any_number(rows: tf.Tensor) -> tf.TensorSpec:
    return tf.TensorSpec([None, *rows.shape[1:]], rows.dtype)
