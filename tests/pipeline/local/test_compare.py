"""`autoencoder compare` runs and ranks families, and pushes the best one."""

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import autoencoder

DONE, BAD_USAGE, REFUSED = 0, 2, 3


def compare(root: Path, presets: str, *arguments: str) -> tuple[int, str, str]:
    """(exit code, standard output, standard error)."""
    where = ("--set", f"root={root}")
    return autoencoder("compare", "configs/digits.yaml", "--json", "--presets", presets, *where, *arguments)


def pushed_best(root: Path, presets: str, epochs: int, thresholds: str, *, code: int) -> Any:
    """The --json document of a comparison with these bounds, which must end with this exit code."""
    bounds = ("--set", f"evaluation.thresholds={thresholds}")
    ended, stdout, stderr = compare(root, presets, "--epochs", str(epochs), "--push-best", *bounds)
    assert ended == code, stderr
    return json.loads(stdout)


@pytest.mark.slow
def test_the_best_blessed_family_is_pushed_and_the_others_are_not(tmp_path: Path) -> None:
    document = pushed_best(tmp_path, "sparse,deep", 25, "[]", code=DONE)
    best, other = document["ranking"]
    assert best["mean_error"] < other["mean_error"]
    assert (best["preset"], best["blessed"]) == ("deep", True)  # 64-8-64, penalised, against 64-128-8-128-64

    pushed = Path(document["pushed"])
    assert pushed.parent == tmp_path / "digits" / "serving"
    assert [version.name for version in pushed.parent.iterdir() if version.name.isdigit()] == [pushed.name]
    record = json.loads((pushed / "assets.extra" / "autoencoder.json").read_text(encoding="utf-8"))
    assert (record["trainer"]["preset"], record["trainer"]["epochs"]) == ("deep", 25)
    assert record["parameters"] == best["parameters"]


@pytest.mark.slow
def test_if_no_family_is_blessed_nothing_is_pushed(tmp_path: Path) -> None:
    document = pushed_best(tmp_path, "dense", 1, "[{metric: mean_error, max: 1.0e-9}]", code=REFUSED)
    assert (document["ranking"][0]["blessed"], document["pushed"]) == (False, None)
    assert not (tmp_path / "digits").exists()


def test_an_unknown_family_is_reported_before_training(tmp_path: Path) -> None:
    code, _, stderr = compare(tmp_path, "deep,dens")
    assert code == BAD_USAGE
    assert "'dens' is none of dense, deep" in stderr
    assert "did you mean 'dense'?" in stderr
    assert list(tmp_path.iterdir()) == []
