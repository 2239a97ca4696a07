"""The number of cores: the smaller of the process's affinity and its container's quota."""

import os

import pytest

from runtime.cores import usable_cores

MINE = len(os.sched_getaffinity(0))


def container(root, **files):
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("cpu_", "cpu.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_without_a_quota_the_affinity_counts(tmp_path):
    assert usable_cores(tmp_path) == MINE
    assert usable_cores(container(tmp_path / "2", cpu_max="max 100000\n")) == MINE
    no_limit = {"cpu__cpu_cfs_quota_us": "-1\n", "cpu__cpu_cfs_period_us": "100000\n"}
    assert usable_cores(container(tmp_path / "1", **no_limit)) == MINE


@pytest.mark.parametrize(("quota", "cores"), [(20_000, 1), (100_000, 1), (150_000, 2), (6_400_000, 64)])
def test_a_quota_limits_and_a_fraction_counts_as_a_core(tmp_path, quota, cores):
    second = container(tmp_path / "2", cpu_max=f"{quota} 100000\n")
    first = container(tmp_path / "1", cpu__cpu_cfs_quota_us=str(quota), cpu__cpu_cfs_period_us="100000")
    assert usable_cores(second) == usable_cores(first) == min(cores, MINE)


def test_a_process_on_one_core_counts_one():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
