"""Counts the processor cores that this process may use."""

import math
import os
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> int:
    """Cores that the process's affinity and, in a container, its processor quota allow; at least 1.

    The quota is that of control groups, version 2 or 1; a fraction of a core counts as one.
    """
    return max(1, math.ceil(min(len(os.sched_getaffinity(0)), _quota(root / "sys/fs/cgroup"))))


def _quota(group: Path) -> float:
    """Cores of processor time per second; infinite without a limit."""
    for read in (_quota_of_version_2, _quota_of_version_1):
        try:
            quota, period = read(group)
        except (OSError, ValueError):  # another version, or no limit ("max")
            continue
        return quota / period if quota > 0 else math.inf
    return math.inf


def _quota_of_version_2(group: Path) -> tuple[int, int]:
    quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
    return int(quota), int(period)


def _quota_of_version_1(group: Path) -> tuple[int, int]:
    quota, period = (
        int((group / "cpu" / name).read_text(encoding="ascii")) for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    )
    return quota, period
