"""`autoencoder rehearse`."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.commands.rehearse import rehearse


def test_help_says_what_is_not_simulated() -> None:
    text = " ".join(CliRunner().invoke(rehearse, ["--help"]).output.split())
    assert "this is a rehearsal, not a run on Kubeflow." in text
    assert "Not simulated: the rest of Argo" in text


def test_a_configuration_cannot_be_rehearsed(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("name: digits\n", encoding="utf-8")
    result = CliRunner().invoke(rehearse, [str(path), "--folder", str(tmp_path / "r")])
    assert result.exit_code == 2
    assert "create one with: autoencoder compile" in result.output


@pytest.mark.parametrize("parameter", ["epochs", ""])
def test_a_parameter_without_a_value_is_refused(parameter: str) -> None:
    result = CliRunner().invoke(rehearse, ["pipeline.yaml", "--param", parameter])
    assert result.exit_code == 2
    assert f"Invalid value for '--param': {parameter}: must look like epochs=20" in result.stderr
