"""Each test runs a script, because pytest's process has threads and libraries that a spare process must not have."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from repository import REPOSITORY

PROGRAM = """
import json, os, signal, sys, time

def main(argv):
    if argv == ["hang"]:
        time.sleep(60)
    if argv == ["crash"]:
        os.kill(os.getpid(), signal.SIGSEGV)
    if argv == ["raise"]:
        raise ValueError("no such thing")
    has = [name for name in ("late", "tensorflow") if name in sys.modules]
    gpus = os.environ["CUDA_VISIBLE_DEVICES"]
    print(json.dumps({"argv": argv, "pid": os.getpid(), "parent": os.getppid(), "gpus": gpus, "has": has}))
    print("a warning", file=sys.stderr)
    return 3

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""
START = """
import json, os, subprocess, sys
from runtime.spare_process import prepare, run_program
"""


def run(tmp_path, script):
    """(what the script prints, its exit status)."""
    (tmp_path / "program.py").write_text(PROGRAM)
    for name in ("late", "tensorflow"):
        (tmp_path / f"{name}.py").write_text("")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPOSITORY)])}
    done = subprocess.run(
        [sys.executable, "-c", START + script], env=environment, capture_output=True, text=True, timeout=50
    )
    assert not done.stderr, done.stderr
    return json.loads(done.stdout)


def test_a_prepared_program_runs_in_a_copy_that_has_only_its_own_imports(tmp_path):
    found = run(
        tmp_path,
        """
prepare("program")
import late
done = run_program("program", ["a", "b c"], timeout_s=20)
print(json.dumps([os.getpid(), done.returncode, done.stderr, json.loads(done.stdout)]))
""",
    )
    pid, status, errors, printed = found
    assert (status, errors) == (3, "a warning\n")
    assert printed.pop("pid") != pid
    assert printed == {"argv": ["a", "b c"], "parent": pid, "gpus": "", "has": []}


@pytest.mark.parametrize("before", ["", "import tensorflow; prepare('program')", "prepare('program'); used()"])
def test_without_a_copy_the_program_runs_in_a_new_process(tmp_path, before):
    found = run(
        tmp_path,
        f"""
def used():
    run_program("program", [], timeout_s=20)
{before}
done = run_program("program", ["a"], timeout_s=20)
print(json.dumps([done.returncode, done.stderr, json.loads(done.stdout)["argv"], json.loads(done.stdout)["has"]]))
""",
    )
    assert found == [3, "a warning\n", ["a"], []]


@pytest.mark.parametrize(("argument", "status"), [("crash", -11), ("raise", 1)])
def test_a_copy_that_fails_is_reported_with_its_status(tmp_path, argument, status):
    found = run(
        tmp_path,
        f"""
prepare("program")
done = run_program("program", ["{argument}"], timeout_s=20)
print(json.dumps([done.returncode, done.stderr.splitlines()[-1:]]))
""",
    )
    assert found == [status, ["ValueError: no such thing"] if argument == "raise" else []]


def test_a_copy_that_takes_too_long_is_killed(tmp_path):
    started = time.monotonic()
    found = run(
        tmp_path,
        """
prepare("program")
try:
    run_program("program", ["hang"], timeout_s=0.2)
except subprocess.TimeoutExpired as error:
    print(json.dumps(str(error)))
""",
    )
    assert found == "Command 'program' timed out after 0.2 seconds"
    assert time.monotonic() - started < 30


def test_an_unused_copy_ends_with_the_process_that_made_it(tmp_path):
    pid = run(
        tmp_path,
        """
prepare("program")
from runtime import spare_process
print(json.dumps(spare_process._spares[0].pid))
""",
    )
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and _is_running(pid):
        time.sleep(0.05)
    assert not _is_running(pid)


def _is_running(pid):
    """Whether a process still works; one that ended may wait for its parent to take note."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
