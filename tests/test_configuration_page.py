"""docs/configuration.md describes every field of the configuration, as the models are now."""

from typing import Literal

import configuration_page
from pydantic import BaseModel, ConfigDict, Field

from pipeline.configuration.configuration import Configuration


class Crop(BaseModel):
    """Cut a part out of the image."""

    side_px: int = Field(ge=4)


class Small(BaseModel):
    """Two fields, one of them a list of sections."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    fit: Literal["stretch", "pad"] | None = "pad"
    """How the image
    is fitted | scaled."""
    crops: tuple[Crop, ...] = ()


def test_the_page_is_current() -> None:
    written = configuration_page.PAGE.read_text(encoding="utf-8")
    assert written == configuration_page.current_page(), "the configuration has changed; run `make docs`"


def test_every_field_has_a_meaning() -> None:
    schema = Configuration.model_json_schema()
    sections = [schema, *schema["$defs"].values()]
    found = [row[0] for section in sections for row in configuration_page.rows(section, schema["$defs"]) if not row[-1]]
    assert found == []


def test_a_field_is_described_by_its_type_default_range_and_docstring() -> None:
    schema = Small.model_json_schema()
    assert list(configuration_page.rows(schema, schema["$defs"])) == [
        ("`fit`", "text or null", "`pad`", "`stretch`, `pad`", r"How the image is fitted \| scaled."),
        ("`crops`", "list of sections", "`[]`", "", "Cut a part out of the image."),
        ("`crops[].side_px`", "whole number", "required", "≥ 4", ""),
    ]


def test_a_preset_lists_the_defaults_in_which_it_differs() -> None:
    conv = configuration_page.preset_defaults()["conv"]
    assert conv == {"batch_size": 128, "filters": [16, 8, 4]}
