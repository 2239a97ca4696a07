"""TensorFlow's C loader, on which TensorFlow Serving is built, loads the models that these tests serve."""

import ctypes
from pathlib import Path

import tensorflow as tf

LIBRARY = Path(tf.__file__).with_name("libtensorflow_cc.so.2")


def _load(folder: Path) -> tuple[int, str]:
    """The code and message of TF_LoadSessionFromSavedModel; (0, "") on success."""
    library, pointer = ctypes.CDLL(str(LIBRARY)), ctypes.c_void_p
    for name in ("TF_NewStatus", "TF_NewGraph", "TF_NewSessionOptions", "TF_LoadSessionFromSavedModel"):
        getattr(library, name).restype = pointer
    library.TF_Message.restype = ctypes.c_char_p
    status, graph = pointer(library.TF_NewStatus()), pointer(library.TF_NewGraph())
    tags = (ctypes.c_char_p * 1)(b"serve")
    options = pointer(library.TF_NewSessionOptions())
    library.TF_LoadSessionFromSavedModel(options, None, str(folder).encode(), tags, 1, graph, None, status)
    return library.TF_GetCode(status), library.TF_Message(status).decode()


def test_models_load_in_c(image_model: Path, half_plus_two: Path) -> None:
    """The autoencoder and half_plus_two."""
    assert _load(image_model / "7") == (0, "")
    assert _load(half_plus_two / "00000123") == (0, "")


def test_folder_without_a_model_does_not_load(tmp_path: Path) -> None:
    """Shows that the test above can fail."""
    code, message = _load(tmp_path)
    assert code != 0
    assert "SavedModel" in message
