"""How many images are worked on at a time: neither small ones one by one, nor large ones by the gigabyte."""

import math

import pytest

from runtime.tfrecords import as_many_as_fit


@pytest.mark.parametrize(
    ("shape", "expected"), [((28, 28, 1), 256), ((256, 256, 1), 256), ((1024, 1024, 3), 5), ((9000, 9000, 3), 1)]
)
def test_batches_go_by_bytes(shape, expected):
    assert as_many_as_fit(shape) == expected
    assert expected in (1, 256) or (expected + 1) * 4 * math.prod(shape) > 2**26 >= expected * 4 * math.prod(shape)
