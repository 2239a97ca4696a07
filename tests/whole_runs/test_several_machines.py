"""A whole run that trains with `autoencoder worker` beside it, as two machines with a common disk would."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from command_line import REPOSITORY, command
from ports import free_port


def start(arguments: list[str], output: Path, addresses: list[str], index: int) -> "subprocess.Popen[bytes]":
    task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}} if addresses else {}
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TF_CONFIG": json.dumps(task)}
    with output.open("wb") as file:
        return subprocess.Popen(command(*arguments), cwd=REPOSITORY, env=environment, stdout=file)


def run_arguments(root: Path) -> list[str]:
    settings = (f"root={root}", "trainer.epochs=3", "trainer.loss=mse", "evaluation.thresholds=[]")
    return ["run", "configs/digits.yaml", "--json", *(part for value in settings for part in ("--set", value))]


@pytest.mark.slow
def test_a_run_on_two_machines_measures_what_a_run_on_one_does(tmp_path: Path) -> None:
    addresses = [f"localhost:{free_port()}" for _ in range(2)]
    together = tmp_path / "together"
    worker = start(["worker", str(together / "digits")], tmp_path / "worker", addresses, 1)
    chief = start(run_arguments(together), tmp_path / "chief.json", addresses, 0)
    assert chief.wait() in (0, 3)
    assert worker.wait() == 0
    alone = start(run_arguments(tmp_path / "alone"), tmp_path / "alone.json", [], 0)
    assert alone.wait() in (0, 3)

    documents = [json.loads((tmp_path / name).read_text(encoding="utf-8")) for name in ("chief.json", "alone.json")]
    assert [document["error"] for document in documents] == [None, None]
    ours, theirs = (document["metrics"]["mean_error"] for document in documents)
    assert ours == pytest.approx(theirs, abs=1e-4)
    assert not list(
        (together / "digits" / "artifacts" / "Trainer").glob("*.json*")
    )  # nobody is called to work any more
