"""Examples of nothing but an image: models probe only images with an identifier, which takes several times as long."""

import tensorflow as tf

from runtime.tfrecords import bytes_of, features_of
from schema.features import IMAGE


def bare_example(encoded: bytes) -> bytes:
    """A serialized tf.Example of an encoded image."""
    image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded]))
    serialized: bytes = tf.train.Example(features=tf.train.Features(feature={IMAGE: image})).SerializeToString()
    return serialized


def bared(serialized: bytes) -> bytes:
    """The same tf.Example without all but its image."""
    return bare_example(bytes_of(features_of(serialized), IMAGE))
