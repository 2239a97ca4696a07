"""Adam with a learning-rate schedule, warm-up, gradient clipping and weight averaging, as configured."""

import tf_keras as keras

from trainer.settings.trainer import TrainerSettings


def make_optimizer(settings: TrainerSettings, *, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """The optimizer for `settings.epochs` epochs of `steps_per_epoch` steps."""
    return keras.optimizers.Adam(
        learning_rate(settings, steps_per_epoch=steps_per_epoch),
        global_clipnorm=settings.clip_norm,
        use_ema=settings.weight_averaging is not None,
        ema_momentum=settings.weight_averaging or 0.0,
    )


def learning_rate(
    settings: TrainerSettings, *, steps_per_epoch: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """A linear rise during warm-up, then constant or falling to 0 along half a cosine.

    Cosine: Loshchilov & Hutter 2017, arXiv:1608.03983; warm-up: Goyal et al. 2017, arXiv:1706.02677.
    """
    schedules = keras.optimizers.schedules
    peak, warmup_steps = settings.learning_rate, round(settings.warmup_epochs * steps_per_epoch)
    if settings.learning_rate_schedule == "cosine":
        steps = max(1, settings.span[1] * steps_per_epoch - warmup_steps)
        if not warmup_steps:
            return schedules.CosineDecay(peak, steps)
        return schedules.CosineDecay(0.0, steps, warmup_target=peak, warmup_steps=warmup_steps)
    if warmup_steps:
        return schedules.PolynomialDecay(0.0, warmup_steps, end_learning_rate=peak, power=1.0)
    return peak
