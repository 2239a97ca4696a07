"""`autoencoder config`: the whole configuration, and its JSON Schema."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from repository import REPOSITORY

from pipeline.commands.config import config
from pipeline.configuration.loading import load_configuration


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(config, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_printed_configuration_is_equal_to_the_one_it_came_from(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.yaml"
    copy.write_text(printed(str(path)), encoding="utf-8")
    assert load_configuration(copy) == load_configuration(path)


def test_overrides_are_part_of_the_printed_configuration() -> None:
    values = yaml.safe_load(printed(str(REPOSITORY / "configs/digits.yaml"), "--set", "trainer.epochs=7"))
    assert values["trainer"]["epochs"] == 7


def test_a_mistake_ends_with_bad_usage() -> None:
    result = CliRunner().invoke(config, [str(REPOSITORY / "configs/digits.yaml"), "--set", "trainer.epoch=7"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "unknown key 'trainer.epoch'; did you mean 'epochs'?" in result.stderr


def test_the_schema_describes_sections_and_fields() -> None:
    schema: dict[str, Any] = json.loads(printed("--schema"))
    assert set(schema["properties"]) >= {"name", "data", "trainer", "evaluation", "kubeflow"}
    seed = schema["properties"]["seed"]
    assert (seed["type"], seed["default"], seed["description"]) == ("integer", 42, "Seed of all random numbers.")
    evaluation = schema["$defs"]["EvaluationSettings"]["properties"]
    assert {"score", "false_alarm_rate", "max_pca_ratio", "thresholds"} <= set(evaluation)
