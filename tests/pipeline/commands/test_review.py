"""`autoencoder review` refuses what cannot be reviewed, and creates nothing then."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cli import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no run has pushed a model yet"),
        (["missing"], "missing: no such folder; `autoencoder runs` lists the runs"),
        (["empty"], "empty holds no run; start one with: autoencoder run"),
        (["empty", "--limit", "0"], "0 is not in the range"),
    ],
)
def test_bad_usage_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    result = CliRunner().invoke(main, ["review", *arguments])
    assert result.exit_code == 2
    assert message in result.output
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]
