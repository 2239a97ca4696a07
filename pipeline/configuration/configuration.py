"""The configuration: one frozen, validated value. Imports nothing heavy, so a mistake is reported within a second."""

import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from components.settings import DataSettings, GateSettings
from pipeline.configuration.kubeflow import KubeflowSettings
from pipeline.metadata.store import MetadataSettings
from runtime.errors import BAD_USAGE, UserError
from trainer.settings.calibration import CalibrationSettings
from trainer.settings.image import ImageSettings
from trainer.settings.trainer import TrainerSettings
from trainer.settings.tuner import TunerSettings

_SECRET = re.compile(r"[\w+.-]+://[^/@\s]*:[^/@\s]*@|--\w*(secret|password|passwd|token)\w*(=|$)", re.IGNORECASE)


class ConfigurationError(UserError):
    """The configuration cannot be used; the message names the file, the field, the value and the remedy."""

    exit_code = BAD_USAGE


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
