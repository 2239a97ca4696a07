"""The training loop: fits an autoencoder to images with Keras."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf
import tf_keras as keras

from runtime.tfrecords import as_many_as_fit
from trainer.data.augmentation import augment
from trainer.data.dataset import Images, ImageSet, PixelConstants
from trainer.families.autoencoder import Autoencoder
from trainer.families.registry import compiles_faster
from trainer.fitting.best_weights import early_stopping, restore_best
from trainer.fitting.callbacks import ReportProgress, StopWhenDiverged, WriteSummaries
from trainer.fitting.checkpoint import Resumable, build_metrics
from trainer.fitting.distribution import is_chief, share_of
from trainer.fitting.optimization import make_optimizer
from trainer.fitting.step_memory import warn_if_short
from trainer.scoring.losses import error_per_image, weighted_loss
from trainer.settings.trainer import TrainerSettings

_STEPS_PER_CALL = 16
"""Steps between two returns to Python, which check the loss and may save a checkpoint."""
_MEASURED = 1000
Pair = tuple[tf.Tensor, tf.Tensor]


def train_autoencoder(
    autoencoder: Autoencoder,
    train: ImageSet,
    held_out: ImageSet,
    constants: PixelConstants,
    settings: TrainerSettings,
    *,
    seed: int,
    log_dir: str | None = None,
    checkpoint_folder: str | None = None,
) -> dict[str, list[float]]:
    """Fit in place and return the loss curves; the target of a normalised image is its pixels in [0, 1].

    Trains on the devices of the strategy in whose scope the model was built. With a `checkpoint_folder` it resumes from
    the checkpoint of an interrupted call, ending with the same weights, and marks the checkpoint as finished.
    """
    model, (batch_size, epochs) = autoencoder.model, settings.span
    strategy = model.distribute_strategy
    share, steps = share_of(strategy, batch_size), train.steps(batch_size)
    _compile(model, settings, steps_per_epoch=steps)
    stopping, at_start = early_stopping(settings), model.get_weights() if settings.keeps_best else []
    resumable = Resumable(
        model,
        checkpoint_folder,
        steps_per_epoch=steps,
        every_seconds=settings.checkpoint_seconds,
        stopping=stopping,
    )
    if not resumable.position.finished:
        warn_if_short(model, min(batch_size, train.count))
        span = {"seed": seed, "epochs": epochs, "first_step": resumable.position.step}
        if model.jit_compile and train.images is not None and settings.augmentation.changes_nothing:
            training = train.rows_of_steps(batch_size, **span, steps_per_call=_STEPS_PER_CALL)
            model.train_function = _compiled_steps(model, train.images, constants)
        else:
            training = train.training_batches(_with_target(constants, settings, seed), batch_size, **span, share=share)
        validation = held_out.batches(batch_size, share=share).map(lambda images: (images, constants.to_pixels(images)))
        validated = _validate_with(model, validation.repeat())
        validation_steps = math.ceil(held_out.count / batch_size)
        if settings.keeps_best and not resumable.position.step:
            start = model.evaluate(validated, steps=validation_steps, verbose=0)
            resumable.remember_start(model, start[0])
        reports: list[keras.callbacks.Callback] = [ReportProgress()]
        if log_dir:
            reports += [
                keras.callbacks.TensorBoard(log_dir, write_graph=False),
                WriteSummaries(log_dir, autoencoder, held_out, constants, images_per_epoch=steps * batch_size),
            ]
        model.fit(
            _distributed(strategy, training),
            validation_data=validated,
            steps_per_epoch=steps,
            validation_steps=validation_steps,
            epochs=epochs,
            callbacks=[
                StopWhenDiverged(),
                *(reports if is_chief() else []),
                *([stopping] if stopping else []),
                resumable,
            ],
            verbose=0,
        )
        model.test_function = None
        if stopping and settings.keeps_best:
            restore_best(model, stopping, at_start, held_out=held_out, constants=constants, settings=settings)
        resumable.finish()
    return resumable.position.history


def errors_of(
    autoencoder: Autoencoder, train: ImageSet, held_out: ImageSet, constants: PixelConstants
) -> dict[str, list[float]]:
    """The loss curves of a family that is fitted in closed form: one point, from at most 1,000 images of each split."""
    curves: dict[str, list[float]] = {}
    for prefix, images in (("", train), ("val_", held_out)):
        sample = images.sample(as_many_as_fit(images.shape, at_most=_MEASURED))
        pixels = constants.to_pixels(sample)
        error = float(np.mean(error_per_image(pixels, autoencoder.model.predict(sample, batch_size=16, verbose=0))))
        curves |= {f"{prefix}loss": [error], f"{prefix}error": [error]}
    return curves


def _compile(model: keras.Model, settings: TrainerSettings, *, steps_per_epoch: int) -> None:
    loss = weighted_loss(settings.loss)
    strategy = model.distribute_strategy
    with strategy.scope():
        model.compile(
            optimizer=make_optimizer(settings, steps_per_epoch=steps_per_epoch),
            loss=lambda pixels, reconstruction: loss(pixels, reconstruction),
            metrics=[keras.metrics.MeanMetricWrapper(error_per_image, name="error")],
            # XLA cannot compile a step that sums gradients over devices.
            jit_compile=compiles_faster(settings) and strategy.num_replicas_in_sync == 1,
            steps_per_execution=_STEPS_PER_CALL,
        )


def _compiled_steps(
    model: keras.Model, images: Images, constants: PixelConstants
) -> Callable[[Iterator[tf.Tensor]], dict[str, tf.Tensor]]:
    """The function that `fit` calls for several steps: one compiled loop, which also gathers the batches from `images`.

    If a step takes a millisecond, handing its batch from TensorFlow's data threads to compiled code takes another.
    """
    build_metrics(model)  # no variable may be created within the loop
    all_images = tf.constant(images)

    @tf.function(jit_compile=True, autograph=False)
    def train(rows: tf.Tensor, steps: tf.Tensor) -> dict[str, tf.Tensor]:
        def step(done: tf.Tensor) -> tf.Tensor:
            batch = tf.gather(all_images, rows[done])
            model.train_step((batch, constants.to_pixels(batch)))
            return done + 1

        tf.while_loop(lambda done: done < steps, step, [tf.zeros((), steps.dtype)])
        return model.get_metrics_result()

    return lambda iterator: train(next(iterator), model._steps_per_execution.value())


def _validate_with(model: keras.Model, validation: tf.data.Dataset) -> tf.data.Dataset:
    """Make `evaluate` read from `validation`, which repeats for ever, if it is called with the dataset returned here.

    `evaluate` starts a new pass over its dataset after every epoch. For a few hundred images, setting it up takes
    longer than the pass.
    """
    steps, strategy = model.make_test_function(), model.distribute_strategy
    batches = iter(_distributed(strategy, validation))
    model.test_function = lambda _: steps(batches)
    return _distributed(strategy, tf.data.Dataset.from_tensors(0).repeat())


def _with_target(
    constants: PixelConstants, settings: TrainerSettings, seed: int
) -> Callable[[tf.Tensor, tf.Tensor], Pair]:
    """(global step, normalised images) -> (the model's input, its target), augmented if configured."""

    def pair(step: tf.Tensor, images: tf.Tensor) -> Pair:
        pixels = constants.to_pixels(images)
        if settings.augmentation.changes_nothing:
            return images, pixels
        pixels = augment(pixels, settings.augmentation, tf.stack([tf.cast(seed, tf.int64), step]))
        return constants.normalise(pixels), pixels

    return tf.autograph.experimental.do_not_convert(pair)


def _distributed(strategy: tf.distribute.Strategy, dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The dataset, its elements distributed in turn over this process's replicas.

    Autotuning is off: its thread takes time from training and delays the end of `fit` by seconds.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = dataset.with_options(options)
    if strategy.num_replicas_in_sync == 1:
        return dataset
    return strategy.distribute_datasets_from_function(lambda _: dataset)
