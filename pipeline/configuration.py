"""YAML -> one frozen, validated value. Imports nothing heavy: a mistake is told within a second."""

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from components.settings import DataSettings, GateSettings
from pipeline.kubeflow_settings import KubeflowSettings
from pipeline.metadata_store import MetadataSettings
from trainer.settings import CalibrationSettings, ImageSettings, TrainerSettings
from trainer.tuner_settings import TunerSettings

_WHERE_CONFIGURATIONS_ARE = "; name your own (autoencoder run my.yaml): ready ones are in configs/ of the sources"
_SECRET = re.compile(r"[\w+.-]+://[^/@\s]*:[^/@\s]*@|--\w*(secret|password|passwd|token)\w*(=|$)", re.IGNORECASE)


class ConfigurationError(Exception):
    """The configuration cannot be used; the message names the file, the field, the value and the remedy."""


class EvaluationSettings(CalibrationSettings, GateSettings):
    """The anomaly score with its false-alarm rate, and the gate: each part is the cache key of its own component."""

    @property
    def calibration(self) -> CalibrationSettings:
        """What the Calibrator reads."""
        return CalibrationSettings.model_validate(self.model_dump(include=set(CalibrationSettings.model_fields)))

    @property
    def gate(self) -> GateSettings:
        """What the Evaluator reads."""
        return GateSettings.model_validate(self.model_dump(include=set(GateSettings.model_fields)))


class PushSettings(BaseModel):
    """Where blessed models go."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    destination: str | None = None
    """Folder that a model server watches; null: `serving/` in the run's folder."""
    keep: int | None = Field(None, ge=1)
    """Newest versions that stay in the destination; null keeps all."""


class BeamSettings(BaseModel):
    """Options for Apache Beam, which runs the data steps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    args: tuple[str, ...] = ("--direct_running_mode=in_memory", "--direct_num_workers=1")
    """Options of every component that runs on Beam; what follows `--` on the command line is added to them."""
    components: dict[str, tuple[str, ...]] = {}
    """Further options of single components by name, e.g. `Evaluator`; of an option given twice the last counts."""

    def with_args(self, more: tuple[str, ...]) -> "BeamSettings":
        """These settings with further options for every component."""
        return self.model_copy(update={"args": (*self.args, *more)})


class Configuration(BaseModel):
    """Everything a run depends on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field("digits", pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=60)
    """The pipeline's name, and its folder below `root`."""
    root: str = "runs"
    seed: int = Field(42, ge=0, lt=2**31)
    data: DataSettings = DataSettings()
    image: ImageSettings = ImageSettings()
    trainer: TrainerSettings = TrainerSettings.model_validate({})
    tuner: TunerSettings = TunerSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    push: PushSettings = PushSettings()
    beam: BeamSettings = BeamSettings()
    metadata: MetadataSettings = MetadataSettings()
    kubeflow: KubeflowSettings = KubeflowSettings()

    @model_validator(mode="after")
    def _check_search_space(self) -> "Configuration":
        for name, value in self.tuner.ends():
            try:
                TrainerSettings.model_validate({**self.trainer.model_dump(), name: value})
            except ValidationError as error:
                reason = error.errors()[0]["msg"].removeprefix("Value error, ")
                raise ValueError(f"tuner.search_space.{name}: {value!r} cannot be tried: {reason}") from None
        return self

    @model_validator(mode="after")
    def _check_secrets(self) -> "Configuration":
        for field, text in _texts("", self.model_dump()):
            if holds_secret(text):
                raise ValueError(
                    f"{field} holds a password or key, which would be written into artifacts and compiled packages: "
                    "take it out; object stores find theirs in the environment (AWS_ACCESS_KEY_ID, ...), Beam's "
                    "options may follow `--` on the command line"
                )
        return self

    @model_validator(mode="after")
    def _check_latent(self) -> "Configuration":
        latent_dim, values = self.trainer.latent_dim, self.image.values_per_image
        if latent_dim is not None and latent_dim >= values:
            raise ValueError(
                f"trainer.latent_dim {latent_dim} is not smaller than the {values} values of an image: "
                "nothing would be compressed; lower it or enlarge image.height_px and image.width_px"
            )
        return self


def holds_secret(text: str) -> bool:
    """Whether it is an address with a password in it, or an option whose name says that its value is secret."""
    return bool(_SECRET.match(text))


def _texts(field: str, value: Any) -> Iterator[tuple[str, str]]:
    """Every text in a value, with the dotted name of the field that holds it."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _texts(f"{field}.{name}" if field else str(name), inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(field, inner)
    elif isinstance(value, str):
        yield field, value


def load_configuration(path: Path, overrides: tuple[str, ...] = ()) -> Configuration:
    """Read a YAML file and apply `section.field=value` overrides, whose values are YAML too.

    Raises ConfigurationError for a file that cannot be read, an unknown key, a wrong type or an impossible combination.
    """
    values = read_values(path, overrides)
    try:
        return Configuration.model_validate(values)
    except ValidationError as error:
        raise ConfigurationError("\n".join(_explain(path, e) for e in error.errors())) from None


def read_values(path: Path, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    """What the file and the overrides name, and no defaults; raises ConfigurationError where they cannot be read."""
    values = _read_yaml(path)
    for override in overrides:
        _apply_override(values, override)
    return values


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.yaml")], n=1)
        hint = f"; did you mean {path.parent / near[0]}?" if near else _WHERE_CONFIGURATIONS_ARE
        raise ConfigurationError(f"{path}: no such configuration file{hint}") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, yaml.YAMLError, RecursionError) as error:  # ValueError: not UTF-8, or a date that is none
        raise ConfigurationError(f"{path}: is not valid YAML: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigurationError(f"{path}: must be a mapping of sections (data:, trainer: ...), not {values!r}")
    return values


def _apply_override(values: dict[str, Any], override: str) -> None:
    dotted, separator, text = override.partition("=")
    if not separator or not dotted:
        raise ConfigurationError(f"--set {override}: must look like trainer.latent_dim=16")
    *sections, field = dotted.split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if inner is None:
            inner = values[section] = {}
        if not isinstance(inner, dict):
            raise ConfigurationError(f"--set {override}: '{section}' holds {inner!r}, not a section")
        values = inner
    try:
        values[field] = yaml.safe_load(text)
    except (ValueError, yaml.YAMLError, RecursionError):
        raise ConfigurationError(f"--set {override}: {text!r} is not a valid YAML value") from None


def _explain(path: Path, error: Any) -> str:
    """One sentence: file, field, value, what is wrong, and the nearest valid key."""
    field = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{path}: unknown key '{field}'{_nearest_key(error['loc'])}"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{path}: {message}"
    if error["type"] == "tuple_type":
        message = f"must be a list, such as [{error['input']}]"
    if error["type"] == "literal_error":
        expected = error["ctx"]["expected"]
        options = [word.strip("'") for word in expected.replace(" or ", ", ").split(", ")]
        near = difflib.get_close_matches(str(error["input"]), options, n=1)
        message = f"must be one of {expected}" + (f"; did you mean '{near[0]}'?" if near else "")
    return f"{path}: {field}: {error['input']!r}: {message}"


def _nearest_key(location: tuple[Any, ...]) -> str:
    model: Any = Configuration
    for part in location[:-1]:
        if part not in model.model_fields:  # a list's index, or a mapping's key such as a component's name
            continue
        annotation = model.model_fields[part].annotation
        model = next((a for a in (annotation, *get_args(annotation)) if hasattr(a, "model_fields")), None)
        if model is None:
            return ""
    keys = list(model.model_fields)
    near = difflib.get_close_matches(str(location[-1]), keys, n=1)
    return f"; did you mean '{near[0]}'?" if near else f"; valid keys: {', '.join(keys)}"
