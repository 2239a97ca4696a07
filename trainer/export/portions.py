"""Computes a batch of large images in portions, so that memory does not grow with the batch."""

from collections.abc import Callable

import tensorflow as tf

from runtime.tfrecords import as_many_as_fit
from trainer.scoring.error_maps import Tensors
from trainer.settings.image import ImageSettings


def in_portions(compute: Callable[[tf.Tensor], Tensors], inputs: tf.Tensor, image: ImageSettings) -> Tensors:
    """`compute(inputs)` for inputs with a row for each image; with tiles, for as many images at a time as fit."""
    if image.tiles is None:
        return compute(inputs)
    at_a_time = as_many_as_fit(image.shape)
    spec = tf.TensorSpec([None, *inputs.shape[1:]], inputs.dtype)
    function = tf.function(compute, autograph=False).get_concrete_function(spec)
    outputs, count = function.structured_outputs, tf.shape(inputs)[0]

    def in_turn() -> Tensors:
        arrays = {
            name: tf.TensorArray(own.dtype, 0, dynamic_size=True, infer_shape=False, element_shape=own.shape)
            for name, own in outputs.items()
        }

        def add(first: tf.Tensor, arrays: dict[str, tf.TensorArray]) -> tuple[tf.Tensor, dict[str, tf.TensorArray]]:
            found = function(inputs[first : first + at_a_time])
            return first + at_a_time, {name: own.write(own.size(), found[name]) for name, own in arrays.items()}

        arrays = tf.while_loop(lambda first, _: first < count, add, [0, arrays], parallel_iterations=1)[1]
        return {name: own.concat() for name, own in arrays.items()}

    joined = tf.cond(count <= at_a_time, lambda: function(inputs), in_turn)
    return {name: tf.ensure_shape(values, outputs[name].shape) for name, values in joined.items()}
