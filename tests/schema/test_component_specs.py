"""A spec creates its output channels and checks its inputs."""

import pytest
from tfx import types
from tfx.types import standard_artifacts

from schema.component_specs import Spec, channels, texts


class ExampleSpec(Spec):
    PARAMETERS = texts("settings")
    INPUTS = channels(model=standard_artifacts.Model, blessing=standard_artifacts.ModelBlessing, optional=["blessing"])
    OUTPUTS = channels(examples=standard_artifacts.Examples)


MODEL = types.Channel(type=standard_artifacts.Model)


def test_outputs_are_created_with_their_types() -> None:
    spec = ExampleSpec(settings="{}", model=MODEL)
    assert {key: channel.type for key, channel in spec.outputs.items()} == {"examples": standard_artifacts.Examples}
    assert (spec.inputs, spec.exec_properties) == ({"model": MODEL}, {"settings": "{}"})


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"blessing": types.Channel(type=standard_artifacts.ModelBlessing)}, "Missing argument 'model'"),
        ({"model": types.Channel(type=standard_artifacts.Examples)}, "Argument model should be a Channel of type"),
    ],
)
def test_inputs_that_are_missing_or_of_another_type_are_refused(inputs: dict[str, types.Channel], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        ExampleSpec(settings="{}", **inputs)


def test_an_unknown_input_is_refused() -> None:
    """TFX itself ignores it, so a misspelt optional input would go unnoticed."""
    with pytest.raises(TypeError, match="ExampleSpec has no input or parameter blesing"):
        ExampleSpec(settings="{}", model=MODEL, blesing=MODEL)
