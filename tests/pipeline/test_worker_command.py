"""`autoencoder worker` needs to know which worker it is, and does not wait for ever."""

import json

from click.testing import CliRunner

from pipeline.exit_codes import BAD_USAGE
from pipeline.worker_command import worker

TF_CONFIG = json.dumps({"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}})


def test_without_tf_config_nothing_is_started(tmp_path):
    result = CliRunner().invoke(worker, [str(tmp_path)], env={"TF_CONFIG": None})
    assert result.exit_code == BAD_USAGE
    assert "TF_CONFIG is not set" in result.output


def test_training_that_never_begins_is_a_failure(tmp_path):
    result = CliRunner().invoke(worker, [str(tmp_path), "--wait", "0"], env={"TF_CONFIG": TF_CONFIG})
    assert result.exit_code == 1
    assert "no training began" in result.output
