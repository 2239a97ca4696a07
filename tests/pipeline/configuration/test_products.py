"""Several configurations in one command: mistakes are found before anything starts."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.configuration.configuration import ConfigurationError
from pipeline.configuration.products import load_products


def _write(folder: Path, **texts: str) -> list[Path]:
    paths = []
    for name, text in texts.items():
        paths.append(folder / f"{name}.yaml")
        paths[-1].write_text(text)
    return paths


def test_the_mistakes_of_all_files_are_reported_together_and_nothing_starts(tmp_path: Path) -> None:
    paths = _write(tmp_path, a="seeds: 3", b="name: b", c="trainer: {epochs: 0}")
    ran = CliRunner().invoke(main, ["run", *map(str, paths), "--set", f"root={tmp_path / 'runs'}"])
    assert ran.exit_code == 2
    assert "a.yaml: unknown key 'seeds'" in ran.output
    assert "c.yaml: trainer.epochs: 0: must be greater than or equal to 1" in ran.output
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("name: cap", "name: cap", r"b\.yaml: name: .*/runs/cap belongs to .*a\.yaml; give each product its own"),
        (
            "{name: a, push: {destination: /models}}",
            "{name: b, push: {destination: /models/}}",
            r"b\.yaml: push\.destination: /models belongs to .*a\.yaml",
        ),
    ],
)
def test_products_that_would_overwrite_each_other_are_refused(
    tmp_path: Path, first: str, second: str, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_products(_write(tmp_path, a=first, b=second), ())


def test_products_keep_their_order_and_share_the_overrides(tmp_path: Path) -> None:
    found = load_products(_write(tmp_path, b="name: b", a="name: a"), ("seed=7",))
    assert [(configuration.name, configuration.seed) for configuration in found] == [("b", 7), ("a", 7)]
