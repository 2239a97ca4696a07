"""Available memory, according to the files that Linux provides."""

from pathlib import Path

import pytest

from runtime.memory import available_gb

MACHINE = "MemTotal:       16777216 kB\nMemFree:         1048576 kB\nMemAvailable:    8388608 kB\n"
GIB = 2**30


def write(root: Path, **files: str) -> Path:
    for name, text in {"proc/meminfo": MACHINE, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def container(limit: str, *, used: int) -> dict[str, str]:
    statistics = f"anon {used - GIB}\ninactive_file {GIB}\nactive_file 0\n"
    files = {"memory.max": limit, "memory.current": str(used), "memory.stat": statistics}
    return {f"sys/fs/cgroup/{name}": f"{text}\n" for name, text in files.items()}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({}, 8.0, id="a machine"),
        pytest.param(container("max", used=2 * GIB), 8.0, id="a container without a limit"),
        pytest.param(container(str(4 * GIB), used=3 * GIB), 2.0, id="a container whose cache can be reclaimed"),
        pytest.param(container(str(64 * GIB), used=3 * GIB), 8.0, id="a limit above the machine's memory"),
        pytest.param({"proc/meminfo": "MemTotal: 1 kB\n"}, None, id="an old kernel"),
    ],
)
def test_available_memory(tmp_path: Path, files: dict[str, str], expected: float | None) -> None:
    assert available_gb(write(tmp_path, **files)) == expected


def test_other_systems_than_linux_report_none(tmp_path: Path) -> None:
    assert available_gb(tmp_path) is None


def test_this_machine_has_memory() -> None:
    available = available_gb()
    assert available is not None
    assert 0.0 < available < 10_000.0
