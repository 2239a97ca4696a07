"""Reads TensorFlow Serving's configuration of several models: the text format of `--model_config_file`.

See https://www.tensorflow.org/tfx/serving/serving_config.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from runtime.errors import UsageError
from schema.signatures import DEFAULT_MODEL_NAME
from serving.model.versions import VersionFolder
from serving.server.logs import log_event
from serving.server.settings import check_model_name

TENSORFLOW: Final = "tensorflow"
_IGNORED_FIELDS: Final = ("logging_config",)


class ModelConfigError(UsageError):
    """The configuration of the models cannot be used; the message names the file, the model and the remedy."""


@dataclass(frozen=True)
class VersionPolicy:
    """Which versions of a model are served: the newest loadable `at_most` (None: all), of the numbers `only`, if set.

    TensorFlow Serving's policies `latest`, `all` and `specific`.
    """

    at_most: int | None = 1
    only: frozenset[int] | None = None

    def candidates(self, folders: list[VersionFolder]) -> list[VersionFolder]:
        """The folders that may be served, in the same order."""
        return [folder for folder in folders if self.only is None or folder.number in self.only]


@dataclass(frozen=True)
class ModelSettings:
    """A served model: its name in requests, the folder of its versions, and names for some of them."""

    base_path: Path
    name: str = DEFAULT_MODEL_NAME
    policy: VersionPolicy = VersionPolicy()
    labels: Mapping[str, int] = field(default_factory=dict)


def read_model_config(path: Path) -> tuple[ModelSettings, ...]:
    """The models in the file, in order; raises ModelConfigError if it cannot be read or used."""
    try:
        config = text_format.Parse(path.read_text(encoding="utf-8"), model_server_config_pb2.ModelServerConfig())
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelConfigError(f"--model_config_file {path}: cannot be read: {reason}") from None
    except text_format.ParseError as error:
        raise ModelConfigError(
            f"{path}: line {error}; the format is TensorFlow Serving's: "
            'model_config_list { config { name: "cap" base_path: "/models/cap" model_platform: "tensorflow" } }'
        ) from None
    return models_of(config, origin=str(path))


def models_of(config: Any, *, origin: str) -> tuple[ModelSettings, ...]:
    """The models of a ModelServerConfig; raises ModelConfigError that begins with `origin`."""
    if config.HasField("custom_model_config"):
        raise ModelConfigError(f"{origin}: custom_model_config is not supported: list the models in model_config_list")
    if not config.model_config_list.config:
        raise ModelConfigError(f"{origin}: names no model: list at least one in model_config_list")
    models: dict[str, ModelSettings] = {}
    for entry in config.model_config_list.config:
        model = _model(entry, origin)
        if model.name in models:
            raise ModelConfigError(f"{origin}: model {model.name!r} is listed twice: give each its own name")
        models[model.name] = model
    return tuple(models.values())


def _model(entry: Any, origin: str) -> ModelSettings:
    where = f"{origin}: model {entry.name!r}"
    try:
        check_model_name(entry.name)
    except UsageError as error:
        raise ModelConfigError(f"{origin}: {error}") from None
    is_other = entry.model_type not in (
        model_server_config_pb2.MODEL_TYPE_UNSPECIFIED,
        model_server_config_pb2.TENSORFLOW,
    )
    if is_other or entry.model_platform not in ("", TENSORFLOW):
        raise ModelConfigError(f"{where}: only model_platform: {TENSORFLOW!r} is supported")
    for ignored in _IGNORED_FIELDS:
        if entry.HasField(ignored):
            log_event("model_config_ignored", level=logging.WARNING, model=entry.name, field=ignored)
    return ModelSettings(
        base_path=_base_path(entry.base_path, where),
        name=entry.name,
        policy=_policy(entry.model_version_policy, where),
        labels=dict(entry.version_labels),
    )


def _base_path(text: str, where: str) -> Path:
    if not text:
        raise ModelConfigError(f"{where}: base_path is missing: set it to the folder that holds the versions")
    if "://" in text:
        raise ModelConfigError(f"{where}: base_path {text!r}: only local folders are served; copy the versions to one")
    path = Path(text)
    if not path.is_absolute():  # TensorFlow Serving refuses it as well
        raise ModelConfigError(f"{where}: base_path {text!r}: must be absolute, as in {str(path.absolute())!r}")
    return path


def _policy(given: Any, where: str) -> VersionPolicy:
    choice = given.WhichOneof("policy_choice")
    if choice == "all":
        return VersionPolicy(at_most=None)
    if choice == "specific":
        if not given.specific.versions:
            raise ModelConfigError(f"{where}: model_version_policy: specific names no version")
        return VersionPolicy(at_most=None, only=frozenset(given.specific.versions))
    return VersionPolicy(at_most=max(1, given.latest.num_versions))
