"""Batches hold many small images or a few large ones."""

import math

import pytest

from runtime.tfrecords import as_many_as_fit


@pytest.mark.parametrize(
    ("shape", "expected"), [((28, 28, 1), 256), ((256, 256, 1), 256), ((1024, 1024, 3), 5), ((9000, 9000, 3), 1)]
)
def test_the_size_of_a_batch_is_limited_in_bytes(shape, expected):
    assert as_many_as_fit(shape) == expected
    assert expected in (1, 256) or (expected + 1) * 4 * math.prod(shape) > 2**26 >= expected * 4 * math.prod(shape)
