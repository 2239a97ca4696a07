"""Whole runs in a group of processes with 3 GB of memory, like a container with that limit."""

import json
import os
import subprocess

import pytest
from command_line import REPOSITORY, command
from local_runs import DONE, SMALL
from memory_limit import memory_limit

pytestmark = pytest.mark.slow
_LIMIT_BYTES = 3 * 10**9


@pytest.mark.parametrize(("config", "overrides"), [("digits", ()), ("folder", SMALL)])
def test_a_run_needs_no_more_than_3_gb(config, overrides, tmp_path):
    settings = [part for value in (f"root={tmp_path}", *overrides) for part in ("--set", value)]
    with memory_limit(_LIMIT_BYTES) as limit:
        if limit is None:
            pytest.skip("control groups are not writable here")
        ran = subprocess.run(
            limit.command(command("run", f"configs/{config}.yaml", "--json", *settings)),
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            timeout=900,
        )
        killed = limit.killed
    assert not killed, f"killed because it ran out of memory: {ran.stderr[-2000:]}"
    assert ran.returncode == DONE, ran.stderr[-2000:]
    assert json.loads(ran.stdout)["pushed"]


def test_a_process_that_needs_more_is_killed():
    with memory_limit(50 * 10**6) as limit:
        if limit is None:
            pytest.skip("control groups are not writable here")
        ran = subprocess.run(limit.command(["python3", "-c", "len(bytes(100_000_000).replace(b'0', b'1') + b'1')"]))
        assert ran.returncode != 0
        assert limit.killed == 1
