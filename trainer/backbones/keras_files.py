"""A network that the user saved with Keras, `.keras` or HDF5, as a backbone."""

import hashlib
import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import tf_keras as keras

from trainer.backbones.backbone import Backbone
from trainer.backbones.errors import BackboneError, first_line
from trainer.backbones.keras_layers import keras_backbone, takes_one_image

KERAS_SUFFIXES: Final = (".keras", ".h5", ".hdf5")
_KERAS_MODULES: Final = ("keras", "tf_keras")
_FUNCTIONS: Final = ("Lambda", "__lambda__", "function")
_SMALL_SCALE: Final = 1 / 64
"""A first Rescaling by less than this takes pixels in [0, 255]."""


def keras_file(path: Path, name: str, layers: Sequence[str] = ()) -> Backbone:
    """The network in a file; it gets pixels in [0, 1], or in [0, 255] if it rescales these itself.

    Layers are names of its layers, by default the last at strides 4, 8 and 16. Python functions in the file are
    refused. What remains can still run any operation of TensorFlow, so load only what you trust.
    """
    _refuse_functions(path, name)
    try:
        model = keras.models.load_model(path, compile=False)
    except Exception as error:  # Keras and h5py raise many kinds for unreadable files
        raise BackboneError(
            f"cannot load the backbone {name} ({first_line(error)}). If Keras 3 wrote the file, save the network as a "
            "SavedModel with model.export(FOLDER), and name that folder"
        ) from error
    channels = model.input_shape[-1] if takes_one_image(model) else 3
    factor = 255.0 if _rescales_bytes(model) else 1.0
    record = {
        "name": name,
        "licence": "unknown: the user's own file",
        "sha256": {path.name: hashlib.sha256(path.read_bytes()).hexdigest()},
    }
    return keras_backbone(model, layers, record, factor * np.eye(channels), np.zeros(channels))


def _refuse_functions(path: Path, name: str) -> None:
    """Raises BackboneError if loading the file would run Python code in it or import modules other than Keras's."""
    for part in _dictionaries(_description(path, name)):
        kind, module = part.get("class_name"), part.get("module") or "keras"
        if kind in _FUNCTIONS or str(module).split(".")[0] not in _KERAS_MODULES:
            raise BackboneError(
                f"the backbone {name}: refused {kind} of {module}, because loading it would run Python code; nothing "
                "was executed. Build the network from Keras's own layers, or save it as a SavedModel"
            )


def _description(path: Path, name: str) -> Any:
    """The layers as JSON, from the format that Keras will read."""
    import h5py  # type: ignore[import-untyped]

    try:
        if path.suffix == ".keras" and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return json.loads(archive.read("config.json"))
        with h5py.File(path) as file:
            return json.loads(file.attrs["model_config"])
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise BackboneError(
            f"the backbone {name} is not a whole network saved by Keras ({first_line(error)}). A file of weights lacks "
            "the layers: save the network with model.save(PATH)"
        ) from error


def _dictionaries(value: Any) -> Iterator[dict[str, Any]]:
    """All dictionaries in a JSON value, at any depth."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    for inner in value if isinstance(value, list) else ():
        yield from _dictionaries(inner)


def _rescales_bytes(model: Any) -> bool:
    scales = [layer.scale for layer in model.layers if isinstance(layer, keras.layers.Rescaling)]
    return bool(scales) and bool(np.all(np.asarray(scales[0]) < _SMALL_SCALE))
