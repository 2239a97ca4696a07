"""The estimated memory of a training step, and the warning if it is too much."""

import logging

import pytest
import tf_keras as keras

from trainer.fitting.step_memory import step_gb, warn_if_short

GIB = 2**30


def convolution() -> keras.Model:
    """One nested model: 8x8x1 -> 8x8x4 -> 256, with 4 * 9 + 4 weights."""
    image = keras.layers.Input((8, 8, 1))
    inner = keras.Model(image, keras.layers.Conv2D(4, 3, padding="same")(image))
    outer = keras.layers.Input((8, 8, 1))
    return keras.Model(outer, keras.layers.Flatten()(inner(outer)))


def test_the_estimate_counts_all_outputs_and_four_values_per_weight() -> None:
    outputs = 64 + 64 + 256 + 256
    assert step_gb(convolution(), 1000) == pytest.approx(4 * (1000 * outputs + 4 * 40) / GIB)


def test_the_warning_about_memory_suggests_a_batch_size_that_fits(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    warn_if_short(convolution(), 1000)
    assert caplog.text == ""
    warn_if_short(convolution(), 2**40)
    [record] = caplog.records
    assert record.notice
    fitting = record.args[2]
    assert f"lower trainer.batch_size to {fitting}, or" in record.getMessage()
    assert step_gb(convolution(), fitting) < record.args[1] < step_gb(convolution(), 3 * fitting)
