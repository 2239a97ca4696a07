"""A disk that is full at one writing step after another: it grows a little each time, and the next run continues."""

import os
import shutil
import subprocess

import pytest
from fault_runs import Runs, weights_digest

pytestmark = pytest.mark.faults
DONE, FAILED, BAD_USAGE = 0, 1, 2
FIRST_KB, GROWTH, LAST_KB = 32, 1.6, 64 * 1024


def mount(folder, *options):
    return subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)], capture_output=True, check=False)


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or mount(folder, "-o", f"size={FIRST_KB}k").returncode:
        pytest.skip("mounting a small disk takes root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_reported_at_every_step_and_does_not_change_the_result(small_disk, undisturbed, table):
    runs, size_kb, reported = Runs(small_disk / "runs"), FIRST_KB, []
    while True:
        output = small_disk.parent / f"{size_kb}"
        ended = runs.start(output=output).wait()
        if ended.code == DONE:
            break
        assert ended.code in (FAILED, BAD_USAGE), (size_kb, ended)
        assert "no space left on" in ended.stderr.lower(), (size_kb, ended)
        assert "Traceback" not in ended.stderr, (size_kb, ended)
        failed = [line.partition(" failed: ")[0] for line in ended.stderr.splitlines() if " failed: " in line]
        reported.append((size_kb, failed[0] if failed else "before the first component"))
        size_kb = int(max(size_kb, shutil.disk_usage(small_disk).used / 1024) * GROWTH)
        assert size_kb < LAST_KB, reported
        assert mount(small_disk, "-o", f"remount,size={size_kb}k").returncode == 0
    document = ended.document
    assert weights_digest(document["pushed"]) == weights_digest(undisturbed[1].document["pushed"])
    assert runs.versions == [document["pushed"].rpartition("/")[2]]
    for size_kb, component in reported:
        table(f"disk of {size_kb} kB full", component, "reported; continues there once there is space")
