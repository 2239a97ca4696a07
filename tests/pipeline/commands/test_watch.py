"""`autoencoder watch` refuses, before it loads a model, what cannot work."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cli import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["camera", "--model", "missing"], "--model missing: no such folder"),
        (["camera", "--model", "camera"], "no version folder"),
        (["missing", "--model", "model"], "missing: no such folder"),
        (["camera", "--model", "model", "--on-anomaly", "webhok:http://host"], "no such program; give webhook:URL"),
        (["camera", "--model", "model", "--on-anomaly", "folder:camera/alarms"], "is below the watched folder"),
        (
            [
                "camera",
                "--model",
                "model",
                "--on-anomaly",
                "webhook:http://a@host",
                "--on-anomaly",
                "webhook:http://b@host",
            ],
            "webhook:http://host is given twice",
        ),
    ],
)
def test_bad_usage_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "camera").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").touch()
    result = CliRunner().invoke(main, ["watch", *arguments])
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "watch").exists()
