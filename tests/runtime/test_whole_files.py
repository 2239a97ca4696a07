"""Files are complete or absent, whatever happens to their writer."""

import os
import stat
import subprocess
import sys
import threading

import pytest

from runtime.whole_files import write_whole

_FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from runtime.whole_files import write_whole
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
write_whole(Path(sys.argv[1]), b"n" * 5000)
"""


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path):
    for content in (b"first", b"", b"second" * 100_000):
        write_whole(tmp_path / "file", content)
        assert (tmp_path / "file").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_permissions_are_those_asked_for_less_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "shared", b"1")
        write_whole(tmp_path / "own", b"1", mode=0o600)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"shared": 0o640, "own": 0o600}


def test_a_disk_that_is_full_leaves_the_earlier_file_and_no_other(tmp_path):
    write_whole(tmp_path / "file", b"old")
    ended = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, str(tmp_path / "file")], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "File too large" in ended.stderr
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "none/file", b"1")


def test_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    contents = [bytes([65 + n]) * 20_000 for n in range(4)]
    failures = []

    def write(content):
        try:
            for _ in range(20):
                write_whole(tmp_path / "file", content)
        except OSError as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    seen = {(tmp_path / "file").read_bytes() for _ in range(200) if (tmp_path / "file").exists()}
    for thread in threads:
        thread.join()
    assert failures == []
    assert seen <= set(contents)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
