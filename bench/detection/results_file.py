"""Keeps measurements in a file, so that an interrupted benchmark continues where it stopped."""

import hashlib
import json
import os
from pathlib import Path

from bench.detection.measurement import Measurement
from bench.detection.tasks import Task
from bench.timing import REPOSITORY, BenchmarkError

_DETECTION = "bench/detection"
_BOTH = (
    "images",
    "components/sources",
    "components/evaluation",
    "trainer/preprocessing.py",
    "trainer/data/decoding.py",
    "trainer/data/masks.py",
)
_BOTH_HERE = ("measurement.py", "method.py", "quality.py", "tasks.py")
_REFERENCES_HERE = ("references.py", "pixel_references.py", "feature_maps.py", "padim.py", "patchcore.py")
_OF_REFERENCES = (*_BOTH, "trainer/backbones", *(f"{_DETECTION}/{name}" for name in (*_BOTH_HERE, *_REFERENCES_HERE)))
_OF_OURS = (
    *("schema", "runtime", "images", "components", "trainer", "pipeline", "serving"),
    *(f"{_DETECTION}/{name}" for name in (*_BOTH_HERE, "product.py")),
)


class ResultsFile:
    """One JSON document a line, written as soon as it is measured."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[str, Measurement] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                self._read(line)

    def get(self, key: str) -> Measurement | None:
        return self._found.get(key)

    def add(self, key: str, measurement: Measurement) -> None:
        """Append it; it is on the disk when this returns."""
        self._found[key] = measurement
        self._path.parent.mkdir(parents=True, exist_ok=True)
        is_whole = not self._path.exists() or self._path.read_bytes()[-1:] in (b"", b"\n")
        with self._path.open("a", encoding="utf-8") as file:
            file.write(("" if is_whole else "\n") + json.dumps({"key": key, **measurement.to_json()}) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _read(self, line: str) -> None:
        try:
            values = json.loads(line)
        except ValueError:  # the last line, if the machine stopped while it was written
            return
        key = values.pop("key")
        self._found[key] = Measurement.from_json(values)


def key_of(task: Task, method: str, seed: int, *, is_reference: bool, settings: str) -> str:
    """What a measurement depends on: task and its files, method, seed, `settings`, and the source that is measured."""
    digest = hashlib.blake2b(f"{task.fingerprint()}\0{settings}\0".encode(), digest_size=8)
    for place in _OF_REFERENCES if is_reference else _OF_OURS:
        for path in _sources(REPOSITORY / place):
            digest.update(path.relative_to(REPOSITORY).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{task.name}/{method}/{seed}/{digest.hexdigest()}"


def _sources(place: Path) -> list[Path]:
    """A file, or the Python files below a folder."""
    if not place.exists():
        raise BenchmarkError(f"{place}: does not exist; name what replaced it in {Path(__file__).name}")
    return [place] if place.is_file() else sorted(place.rglob("*.py"))
