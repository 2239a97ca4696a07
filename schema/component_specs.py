"""Declares the inputs, outputs and parameters of our TFX components."""

from collections.abc import Collection
from typing import Any

from tfx import types
from tfx.types import artifact, component_spec


class Spec(component_spec.ComponentSpec):
    """A spec that creates its own output channels; its arguments are the inputs and the parameters."""

    PARAMETERS: dict[str, Any] = {}
    INPUTS: dict[str, Any] = {}
    OUTPUTS: dict[str, Any] = {}

    def __init__(self, **given: Any) -> None:
        """Raises TypeError for an unknown argument, which TFX would ignore."""
        unknown = given.keys() - {*self.PARAMETERS, *self.INPUTS}
        if unknown:
            raise TypeError(f"{type(self).__name__} has no input or parameter {', '.join(sorted(unknown))}")
        super().__init__(**given, **{key: types.Channel(type=output.type) for key, output in self.OUTPUTS.items()})


def texts(*names: str) -> dict[str, component_spec.ExecutionParameter]:
    """Parameters that are strings."""
    return {name: component_spec.ExecutionParameter(type=str) for name in names}


def channels(
    optional: Collection[str] = (), **types_by_key: type[artifact.Artifact]
) -> dict[str, component_spec.ChannelParameter]:
    """Inputs or outputs by key, each with its type of artifact."""
    return {
        key: component_spec.ChannelParameter(type=type_, optional=key in optional)
        for key, type_ in types_by_key.items()
    }
