"""A start as PCA gives way only to an epoch that is clearly better."""

import numpy as np
import pytest
import tf_keras as keras

from trainer.data.dataset import ImageSet, PixelConstants
from trainer.fitting.best_weights import clearly_lower, restore_best
from trainer.settings.trainer import TrainerSettings

RANDOM = np.random.default_rng(8)


@pytest.mark.parametrize(("count", "critical"), [(2, 31.821), (6, 3.365), (31, 2.457), (1000, 2.330)])
@pytest.mark.parametrize(("factor", "clear"), [(0.99, False), (1.01, True), (-1.01, False)])
def test_a_loss_is_clearly_lower_if_the_paired_t_statistic_exceeds_the_tables_critical_value(
    count, critical, factor, clear
):
    """Student's t, one-sided at 1 %, with count - 1 degrees of freedom."""
    noise = RANDOM.standard_normal(count)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    start = RANDOM.random(count)
    end = start - (noise + factor * critical / np.sqrt(count))
    assert clearly_lower(end, than=start) is clear


LUCKY = [0.0, 0.5, 0.5, 0.5, 0.5]
"""Grey values that 0.4 reconstructs better than 0.5 on average, but only because of the first."""
CLEAR = [0.0, 0.1, 0.2, 0.1, 0.0]


@pytest.mark.parametrize(
    ("greys", "linear_path", "best_epoch", "kept"),
    [(LUCKY, True, 3, 0.5), (CLEAR, True, 3, 0.4), (LUCKY, False, 3, 0.4), (LUCKY, False, -1, 0.5)],
)
def test_the_start_of_a_linear_path_is_kept_unless_the_best_epoch_is_clearly_better(
    greys, linear_path, best_epoch, kept, caplog
):
    """The model draws one grey everywhere: 0.5 at the start, 0.4 after the best epoch."""
    layers = keras.layers
    model = keras.Sequential([layers.Input((2, 2, 1)), layers.Dense(1, kernel_initializer="zeros")])
    start, best = ([np.zeros((1, 1)), np.array([grey])] for grey in (0.5, 0.4))
    stopping = keras.callbacks.EarlyStopping()
    stopping.best_epoch, stopping.best = best_epoch, 0.1
    stopping.best_weights = best if best_epoch >= 0 else start
    restore_best(
        model,
        stopping,
        start,
        held_out=ImageSet(5, (2, 2, 1), np.tile(np.float32(greys).reshape(5, 1, 1, 1), (1, 2, 2, 1))),
        constants=PixelConstants(np.zeros(1, np.float32), np.ones(1, np.float32)),
        settings=TrainerSettings.model_validate({"preset": "deep", "loss": "mse", "linear_path": linear_path}),
    )
    assert model.get_weights()[1] == pytest.approx(kept)
    assert ("no epoch had a clearly lower validation loss" in caplog.text) == (kept == 0.5)


def test_a_single_image_proves_nothing():
    assert not clearly_lower(np.zeros(1), than=np.ones(1))


def test_equal_losses_are_not_lower():
    assert not clearly_lower(np.ones(5), than=np.ones(5))
