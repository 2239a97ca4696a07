"""From the Trainer's arguments and images to a trained autoencoder."""

import tensorflow as tf
import tf_keras as keras
from tfx.components.trainer.fn_args_utils import FnArgs

from trainer.data.dataset import ImageSet, PixelConstants
from trainer.families.autoencoder import Autoencoder
from trainer.families.registry import build_autoencoder, has_closed_form, started_autoencoder
from trainer.fitting.arguments import settings_of, training_folder
from trainer.fitting.distribution import local_strategy
from trainer.fitting.precision import FLOAT32, computing_in
from trainer.fitting.training_loop import errors_of, train_autoencoder
from trainer.fitting.warm_start import take_weights
from trainer.settings.calibration import FEW_IMAGES
from trainer.settings.image import ImageSettings
from trainer.settings.trainer import TrainerSettings


def trains_on_held_out(settings: TrainerSettings, train: ImageSet, held_out: ImageSet) -> bool:
    """Whether all images are for training, and each is later scored by a fit without it, because there are few.

    Not with tiles, of which the fit sees only some of each image.
    """
    is_cut = train.tiles_of is not None
    return has_closed_form(settings) and not is_cut and train.count + held_out.count < FEW_IMAGES


def fit(
    fn_args: FnArgs,
    train: ImageSet,
    held_out: ImageSet,
    constants: PixelConstants,
    strategy: tf.distribute.Strategy | None = None,
) -> tuple[Autoencoder, dict[str, list[float]]]:
    """A trained autoencoder and its loss curves; without `strategy` it trains on this machine's devices."""
    settings, seed = settings_of(fn_args), fn_args.custom_config["seed"]
    image = ImageSettings.model_validate(fn_args.custom_config["image"])
    strategy = strategy or local_strategy()
    keras.utils.set_random_seed(seed)
    with strategy.scope(), computing_in(settings.precision) as policy:
        images = train.joined(held_out) if trains_on_held_out(settings, train, held_out) else train
        autoencoder = started_autoencoder(image, settings, images, constants.to_pixels)
        if settings.warm_start:
            take_weights(autoencoder.model, fn_args.base_model)
    if has_closed_form(settings):
        return autoencoder, errors_of(autoencoder, train, held_out, constants)
    history = train_autoencoder(
        autoencoder,
        train,
        held_out,
        constants,
        settings,
        seed=seed,
        log_dir=fn_args.model_run_dir,
        checkpoint_folder=training_folder(fn_args),
    )
    if strategy.num_replicas_in_sync == 1 and policy == FLOAT32:
        return autoencoder, history
    # The exported model must not depend on the devices or the precision that it was trained with.
    plain = build_autoencoder(image, settings)
    plain.model.set_weights(autoencoder.model.get_weights())
    return plain, history
