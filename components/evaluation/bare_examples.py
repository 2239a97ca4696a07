"""Examples without an identifier: models probe only images that have one, which takes several times as long."""

import tensorflow as tf

from runtime.tfrecords import bytes_of, features_of
from schema.features import IMAGE, IMAGE_ID


def bare_example(encoded: bytes) -> bytes:
    """A serialized tf.Example of an encoded image."""
    image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded]))
    serialized: bytes = tf.train.Example(features=tf.train.Features(feature={IMAGE: image})).SerializeToString()
    return serialized


def bared(serialized: bytes) -> bytes:
    """The same tf.Example without all but its image."""
    return bare_example(bytes_of(features_of(serialized), IMAGE))


def without_identifier(serialized: bytes) -> bytes:
    """The same tf.Example without its identifier."""
    example = tf.train.Example.FromString(serialized)
    example.features.feature.pop(IMAGE_ID, None)
    found: bytes = example.SerializeToString()
    return found
