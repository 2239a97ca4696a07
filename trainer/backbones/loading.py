"""Finds a backbone by its name or its path."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf

from runtime import object_store
from runtime.did_you_mean import did_you_mean
from runtime.object_store import RemotePath, as_path
from trainer.backbones.applications import application, applications
from trainer.backbones.backbone import Backbone
from trainer.backbones.errors import BackboneError
from trainer.backbones.keras_files import KERAS_SUFFIXES, keras_file
from trainer.backbones.pretrained import PRETRAINED, pretrained
from trainer.backbones.saved_models import saved_model


def load_backbone(name: str, layers: Sequence[str] = ()) -> Backbone:
    """The backbone that `name` denotes, with frozen weights; its maps are those of `layers`, or of a default choice.

    A name is `efficientnet-lite0` (or 1, 2), a network of `tf_keras.applications`, or the path of a `.keras` or HDF5
    file or of a SavedModel's folder, local or in an object store. Raises BackboneError.
    """
    with tf.init_scope():  # variables belong to no graph, wherever this is called
        if name in PRETRAINED:
            return pretrained(name, layers)
        if name in applications():
            return application(name, layers)
        with _local(name) as path:
            if path.is_dir():
                return saved_model(path, name, layers)
            if path.suffix.lower() in KERAS_SUFFIXES and path.is_file():
                return keras_file(path, name, layers)
    raise BackboneError(_unknown(name))


@contextmanager
def _local(name: str) -> Iterator[Path]:
    """The path itself, or a copy of the file or the folder in an object store for as long as it is loaded."""
    place = as_path(name)
    if not isinstance(place, RemotePath):
        yield place
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / place.name
        try:
            if place.is_dir():
                object_store.download(object_store.locate(name)[0], name, copy)
            elif place.is_file():
                copy.write_bytes(place.read_bytes())
        except OSError as error:
            raise BackboneError(f"cannot read the backbone {name}: {error}") from error
        yield copy


def _unknown(name: str) -> str:
    hint = did_you_mean(name, [*PRETRAINED, *applications()], ".")
    return (
        f"there is no backbone '{name}'{hint} Use {', '.join(PRETRAINED)}, a network of Keras Applications such "
        f"as MobileNetV2, or the path of a SavedModel's folder or of a {' or '.join(KERAS_SUFFIXES)} file"
    )
