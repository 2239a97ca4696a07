"""A control group with a memory limit, as a container has one, for processes that a test starts."""

import shlex
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class MemoryLimit:
    """A group below this process's own, of version 1 or 2."""

    group: Path

    def command(self, arguments: list[str]) -> list[str]:
        """The command of a process that belongs to the group before it starts, as all its children will."""
        return [
            "sh",
            "-c",
            f"echo $$ > {shlex.quote(str(self.group / 'cgroup.procs'))} && exec {shlex.join(arguments)}",
        ]

    @property
    def killed(self) -> int:
        """Processes that were killed because the limit was reached."""
        events = [self.group / name for name in ("memory.events", "memory.oom_control")]
        lines = next(path for path in events if path.exists()).read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


@contextmanager
def memory_limit(limit_bytes: int) -> Iterator[MemoryLimit | None]:
    """None where no group can be made: without root, or in a container with a read-only /sys."""
    group = _new_group(limit_bytes)
    try:
        yield MemoryLimit(group) if group else None
    finally:
        if group:
            group.rmdir()


def _new_group(limit_bytes: int) -> Path | None:
    for parent, limits in _own_groups():
        group = parent / f"test-{uuid.uuid4().hex}"
        try:
            group.mkdir()
        except OSError:
            continue
        of_memory, of_swap = (group / name for name in limits)
        try:
            with of_memory.open("r+") as file:  # which the kernel has made
                file.write(str(limit_bytes))
            if of_swap.exists():
                of_swap.write_text(str(limit_bytes if "memsw" in of_swap.name else 0))
            return group
        except OSError:
            group.rmdir()
    return None


def _own_groups() -> Iterator[tuple[Path, tuple[str, str]]]:
    """Groups that may get a child, and the names of its limits, of memory and of swap."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            yield _GROUPS / "memory" / path.lstrip("/"), ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
        elif not controllers:
            own = _GROUPS / path.lstrip("/")
            for parent in (own, own.parent):  # only a group without processes of its own passes controllers on
                if parent.is_relative_to(_GROUPS):
                    yield parent, ("memory.max", "memory.swap.max")
