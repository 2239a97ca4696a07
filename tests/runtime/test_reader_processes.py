"""Each test runs a script, because pytest's process has threads that a process must not have when it is copied."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from repository import REPOSITORY

READ = """
import os, signal, time
from pathlib import Path

class OddError(Exception):
    def __init__(self, some, all_):
        super().__init__(f"{some} of {all_}")

def read(item):
    if item == "odd":
        raise OddError(7, 9)
    if item == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "fail":
        raise ValueError("no such thing")
    if isinstance(item, bytes):
        with open("read", "ab") as file:
            file.write(b".")
        return item * 1_000_000
    if item == "slow":
        time.sleep(0.3)
    return item, os.getpid(), sorted(os.sched_getaffinity(0)), os.environ.get("CUDA_VISIBLE_DEVICES")
"""
START = """
import json, os, time
from reading import read
from runtime.reader_processes import ReaderEndedError, is_prepared, prepare, read_all
assert not is_prepared()
prepare()
assert is_prepared()
"""


def run(tmp_path, script):
    """What the script prints as JSON; the two modules are importable there."""
    (tmp_path / "reading.py").write_text(READ)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPOSITORY)])}
    done = subprocess.run(
        [sys.executable, "-c", START + script],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return json.loads(done.stdout)


def test_results_come_in_the_order_of_the_items_from_as_many_processes(tmp_path):
    found, own, cores = run(
        tmp_path,
        """
items = ["slow", *range(100)]
print(json.dumps([list(read_all(read, items, processes=3)), os.getpid(), sorted(os.sched_getaffinity(0))]))
""",
    )
    assert [item for item, *_ in found] == ["slow", *range(100)]
    pids = [pid for _, pid, *_ in found]
    assert len(set(pids)) == 3
    assert own not in pids
    assert max(pids.count(pid) for pid in pids) <= 34
    assert all(used == cores and gpus == "" for *_, used, gpus in found)


def test_readers_use_the_cores_of_their_process_as_it_is_now(tmp_path):
    found, core = run(
        tmp_path,
        """
core = min(os.sched_getaffinity(0))
os.sched_setaffinity(0, {core})
print(json.dumps([list(read_all(read, [1], processes=1)), core]))
""",
    )
    assert found[0][2] == [core]


def test_an_error_is_raised_in_its_turn_and_the_next_reading_works(tmp_path):
    found = run(
        tmp_path,
        """
found = []
try:
    for item, *_ in read_all(read, [*range(9), "fail", *range(9)], processes=2):
        found.append(item)
except ValueError as error:
    found.append(str(error))
print(json.dumps([found, [item for item, *_ in read_all(read, ["again"], processes=2)]]))
""",
    )
    assert found == [[*range(9), "no such thing"], ["again"]]


def test_a_killed_reader_is_named_with_the_remedy(tmp_path):
    message = run(
        tmp_path,
        """
try:
    list(read_all(read, [*range(9), "die", *range(9)], processes=2))
except ReaderEndedError as error:
    print(json.dumps(str(error)))
""",
    )
    assert "killed" in message
    assert "data.workers" in message


def test_only_a_few_results_wait(tmp_path):
    started = run(
        tmp_path,
        """
results = read_all(read, [b"x"] * 100, processes=2)
next(results)
time.sleep(1)
print(json.dumps(os.path.getsize("read")))
""",
    )
    assert 2 <= started <= 6


def test_nothing_is_left_of_an_unfinished_reading_nor_of_the_process(tmp_path):
    pids, waiting = run(
        tmp_path,
        """
import gc
children = f"/proc/{os.getpid()}/task/{os.getpid()}/children"
[waiting] = map(int, open(children).read().split())
results = read_all(read, [*["slow"] * 40], processes=2)
pids = [next(results)[1] for _ in range(2)]
results.close()
time.sleep(1)
print(json.dumps([[pid for pid in pids if os.path.exists(f"/proc/{pid}")], waiting]))
""",
    )
    assert pids == []
    until = time.monotonic() + 10
    while Path(f"/proc/{waiting}").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(f"/proc/{waiting}").exists()


def test_files_that_the_process_has_opened_are_not_kept_open(tmp_path):
    kept = run(
        tmp_path,
        """
file = open("opened", "w")
prepare()
children = open(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read().split()
time.sleep(0.5)
paths = [os.readlink(f"/proc/{pid}/fd/{name}") for pid in children for name in os.listdir(f"/proc/{pid}/fd")]
print(json.dumps([path for path in paths if path.endswith("opened")]))
""",
    )
    assert kept == []


def test_without_the_waiting_copy_the_error_names_the_remedy(tmp_path):
    message = run(
        tmp_path,
        """
import signal
[waiting] = map(int, open(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read().split())
os.kill(waiting, signal.SIGKILL)
os.waitpid(waiting, 0)
try:
    list(read_all(read, [1], processes=1))
except ReaderEndedError as error:
    print(json.dumps(str(error)))
""",
    )
    assert "data.workers" in message


def test_an_error_whose_constructor_takes_more_than_a_message_keeps_its_message(tmp_path):
    message = run(
        tmp_path,
        """
try:
    list(read_all(read, ["odd"], processes=1))
except RuntimeError as error:
    print(json.dumps(str(error)))
""",
    )
    assert message == "OddError: 7 of 9"
