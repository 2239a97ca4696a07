"""`autoencoder worker` requires TF_CONFIG, and waits for a limited time."""

import json
import threading

import pytest
from click.testing import CliRunner

from pipeline.commands.worker import is_written, worker
from runtime.errors import BAD_USAGE
from schema.artifacts import JOB_FILE

TF_CONFIG = json.dumps({"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}})

JOB_PATH = f"artifacts/Trainer/{JOB_FILE}"


def write_job(run_folder):
    job = run_folder / JOB_PATH
    job.parent.mkdir(parents=True, exist_ok=True)
    job.write_text("{}")


@pytest.mark.parametrize("text", [None, "abc", "[1]", "{}", '{"task": {"type": "worker"}}', '{"task": 1}'])
def test_without_tf_config_nothing_is_started(text, tmp_path):
    result = CliRunner().invoke(worker, [str(tmp_path)], env={"TF_CONFIG": text})
    assert result.exit_code == BAD_USAGE
    assert "TF_CONFIG is not set" in result.output


@pytest.mark.parametrize("left_by_a_killed_chief", [False, True])
def test_training_that_never_begins_fails(left_by_a_killed_chief, tmp_path):
    if left_by_a_killed_chief:
        write_job(tmp_path)
    result = CliRunner().invoke(worker, [str(tmp_path), "--wait", "1.5"], env={"TF_CONFIG": TF_CONFIG})
    assert result.exit_code == 1
    assert "no training began" in result.output


@pytest.mark.parametrize("left_by_a_killed_chief", [False, True])
def test_a_job_is_detected_when_it_is_written(left_by_a_killed_chief, tmp_path):
    if left_by_a_killed_chief:
        write_job(tmp_path)
    chief = threading.Timer(0.5, write_job, [tmp_path])
    chief.start()
    assert is_written(tmp_path / JOB_PATH, wait_s=30)
    chief.join()
