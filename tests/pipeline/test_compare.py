"""`autoencoder compare`: families in a whole run each, ranked, and the best one pushed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
DONE, BAD_USAGE, REFUSED = 0, 2, 3


def compare(*arguments: str) -> "subprocess.CompletedProcess[str]":
    start = "from pipeline.cli import main; main()"
    command = [sys.executable, "-c", start, "compare", "configs/digits.yaml", "--json", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_best_blessed_family_is_pushed_and_the_others_are_not(tmp_path: Path) -> None:
    settings = ["--set", f"root={tmp_path}", "--set", "evaluation.thresholds=[]"]
    ran = compare("--presets", "sparse,deep", "--epochs", "25", "--push-best", *settings)
    assert ran.returncode == DONE, ran.stderr
    document = json.loads(ran.stdout)
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
def test_where_no_family_is_blessed_nothing_is_pushed(tmp_path: Path) -> None:
    settings = ["--set", f"root={tmp_path}", "--set", "evaluation.thresholds=[{metric: mean_error, max: 1.0e-9}]"]
    ran = compare("--presets", "dense", "--epochs", "1", "--push-best", *settings)
    assert ran.returncode == REFUSED, ran.stderr
    document = json.loads(ran.stdout)
    assert (document["ranking"][0]["blessed"], document["pushed"]) == (False, None)
    assert not (tmp_path / "digits").exists()


def test_an_unknown_family_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    ran = compare("--presets", "deep,dens", "--set", f"root={tmp_path}")
    assert ran.returncode == BAD_USAGE
    assert "'dens' is none of dense, deep" in ran.stderr
    assert list(tmp_path.iterdir()) == []
