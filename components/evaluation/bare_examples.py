"""Examples of nothing but an image: models probe only images with an identifier, which takes several times as long."""

import tensorflow as tf

from schema.features import IMAGE


def bare_example(encoded: bytes) -> bytes:
    """A serialized tf.Example of an encoded image."""
    image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded]))
    serialized: bytes = tf.train.Example(features=tf.train.Features(feature={IMAGE: image})).SerializeToString()
    return serialized


def bared(serialized: bytes) -> bytes:
    """The same tf.Example without all but its image."""
    feature = tf.train.Example.FromString(serialized).features.feature
    return bare_example(feature[IMAGE].bytes_list.value[0])
