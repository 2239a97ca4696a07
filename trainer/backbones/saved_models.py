"""A SavedModel as a backbone: the maps or the tokens that its signature returns."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import tensorflow as tf

from trainer.backbones.backbone import Backbone, check_layers
from trainer.backbones.errors import BackboneError

SIGNATURE: Final = "serving_default"
_CHANNELS_FIRST: Final = "pixel_values"
"""The input of transformers exported by Hugging Face's library, which is [B, 3, H, W] although its shape is open."""
_MOST_CLASS_TOKENS: Final = 8
"""Class and register tokens precede those of the image's patches (Darcet et al. 2023, arXiv:2309.16588)."""


class _Layers(tf.Module):
    """Some outputs of a signature; tokens become a square map."""

    def __init__(self, loaded: Any, signature: Any, layers: Sequence[str]) -> None:
        super().__init__()
        self._loaded = loaded  # keeps the variables alive, and in the SavedModel that this module becomes part of
        self._signature = signature
        self._names = tuple(layers)

    def __call__(self, pixels: tf.Tensor) -> list[tf.Tensor]:
        [(name, spec)] = _inputs(self._signature).items()
        first = _is_channels_first(name, spec)
        size = tf.TensorShape(spec.shape[2:4] if first else spec.shape[1:3])
        if not size.is_compatible_with(pixels.shape[1:3]):
            raise BackboneError(
                f"the SavedModel takes images of {size[0]}×{size[1]} pixels, not of {pixels.shape[1]}×"
                f"{pixels.shape[2]}; set the image's size to that, or export the network with an open size"
            )
        outputs = self._signature(**{name: tf.transpose(pixels, (0, 3, 1, 2)) if first else pixels})
        return [_as_map(outputs[layer]) for layer in self._names]


def saved_model(folder: Path, name: str, layers: Sequence[str] = ()) -> Backbone:
    """The SavedModel below `folder`; it gets pixels in [0, 1].

    Layers are the outputs of its signature `serving_default`, by default all maps [B, h, w, c] and, if there are none,
    all tokens [B, T, D], in the order of their names. A SavedModel is a program: load only what you trust.
    """
    try:
        loaded = tf.saved_model.load(str(folder))
    except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
        raise BackboneError(f"cannot load the SavedModel {name}: {error}") from error
    signature = loaded.signatures.get(SIGNATURE)
    if signature is None:
        raise BackboneError(
            f"the SavedModel {name} has no signature '{SIGNATURE}' but {sorted(loaded.signatures) or 'none'}; export "
            "one from an image to its feature maps"
        )
    channels = _check_input(name, signature)
    outputs = signature.structured_outputs
    ranks = {output: outputs[output].shape.rank for output in sorted(outputs)}
    usable = [output for output, rank in ranks.items() if rank in (3, 4)]
    check_layers(name, layers, usable)
    maps = [output for output in usable if ranks[output] == 4]
    names = list(layers) or maps or usable
    if not names:
        shapes = {output: spec.shape.as_list() for output, spec in sorted(outputs.items())}
        raise BackboneError(
            f"the SavedModel {name} returns neither maps [B, h, w, c] nor tokens [B, T, D] but {shapes}"
        )
    record = {
        "name": name,
        "input": {"range": [0, 1], "channels": channels, "scaling": "none: the SavedModel's own"},
        "licence": "unknown: the user's own SavedModel",
        "sha256": {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        },
    }
    return Backbone(_Layers(loaded, signature, names), names, record, channels=channels)


def _inputs(signature: Any) -> dict[str, tf.TensorSpec]:
    return dict(signature.structured_input_signature[1])


def _check_input(name: str, signature: Any) -> int:
    """Number of channels. Raises BackboneError unless the signature takes one batch of images in float32."""
    inputs = _inputs(signature)
    if len(inputs) == 1:
        [(key, spec)] = inputs.items()
        channels = 3
        if spec.shape.rank == 4:
            channels = spec.shape[1 if _is_channels_first(key, spec) else 3] or 3
        if spec.dtype == tf.float32 and spec.shape.rank in (4, None) and channels in (1, 3):
            return int(channels)
    described = {key: f"{spec.dtype.name} {spec.shape}" for key, spec in inputs.items()}
    raise BackboneError(
        f"the SavedModel {name} takes {described} instead of one batch of images [B, H, W, 3] of float32; export a "
        "signature that does"
    )


def _is_channels_first(name: str, spec: tf.TensorSpec) -> bool:
    if spec.shape.rank is None:
        return name == _CHANNELS_FIRST
    return spec.shape[3] not in (1, 3) and (spec.shape[1] in (1, 3) or name == _CHANNELS_FIRST)


def _as_map(features: tf.Tensor) -> tf.Tensor:
    """A map as it is; tokens [B, T, D] -> [B, n, n, D], without those that precede the patches'."""
    if features.shape.rank != 3:
        return features
    tokens = features.shape[1] if features.shape[1] is not None else tf.shape(features)[1]
    side = _whole_root(tokens)
    if isinstance(tokens, int) and not 0 <= tokens - side * side <= _MOST_CLASS_TOKENS:
        raise BackboneError(f"{tokens} tokens are not a square of patches after at most {_MOST_CLASS_TOKENS} others")
    patches = features[:, tokens - side * side :]
    return tf.reshape(patches, (-1, side, side, features.shape[2]))


def _whole_root(number: Any) -> Any:
    """The whole square root of a number that is known, or only in the graph."""
    if isinstance(number, int):
        return int(number**0.5)
    return tf.cast(tf.floor(tf.sqrt(tf.cast(number, tf.float64))), tf.int32)
