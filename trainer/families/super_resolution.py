"""`super_resolution`: the encoder sees a shrunk image, and the target is the image at full size.

Dong et al. 2014, "Image Super-Resolution Using Deep Convolutional Networks", arXiv:1501.00092; upsampling by sub-pixel
convolutions as in the residual family.
"""

import tf_keras as keras

from trainer.families.autoencoder import Autoencoder, Shape, join
from trainer.families.body import body_decoder, body_encoder
from trainer.settings.model import ModelSettings


def super_resolution(shape: Shape, settings: ModelSettings) -> Autoencoder:
    """The encoder shrinks the image: each `downscale` x `downscale` block, also a cut-off one, becomes its mean."""
    image = keras.layers.Input(shape)
    shrunk = keras.layers.AveragePooling2D(settings.downscale, padding="same")(image)
    body = body_encoder(shrunk.shape[1:], settings, settings.latent_size)
    encoder = keras.Model(image, body(shrunk), name="encoder")
    return join(encoder, body_decoder(shape, settings))
