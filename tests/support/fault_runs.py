"""Small real runs on the digits that faults are put into."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forked import Ended, Started

SETTINGS = ("trainer.epochs=10", "evaluation.thresholds=[]")


@dataclass(frozen=True)
class Runs:
    """The runs of configs/digits.yaml below one root."""

    root: Path

    @property
    def folder(self) -> Path:
        return self.root / "digits"

    @property
    def versions(self) -> list[str]:
        """What is served, and what a server ignores."""
        return sorted(path.name for path in (self.folder / "serving").glob("*"))

    def start(
        self, *overrides: str, fault: Any = None, details: tuple[Any, ...] = (), output: Path | None = None
    ) -> Started:
        settings = [part for value in (f"root={self.root}", *SETTINGS, *overrides) for part in ("--set", value)]
        output = output or self.root.parent / f"{self.root.name}-output-{len(list(self.root.parent.iterdir()))}"
        return Started(output, ["run", "configs/digits.yaml", "--json", *settings], fault, *details)

    def run(self, *overrides: str, fault: Any = None, details: tuple[Any, ...] = ()) -> Ended:
        return self.start(*overrides, fault=fault, details=details).wait()


def names_that(state: str, ended: Ended) -> list[str]:
    return [c["name"] for c in ended.document["components"] if c["state"] == state]


def weights_digest(model: str) -> str:
    """Of every variable of a SavedModel, by name and value."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(f"{model}/variables/variables")
    digest = hashlib.blake2b()
    for name in sorted(reader.get_variable_to_shape_map()):
        value = reader.get_tensor(name)
        digest.update(name.encode())
        if name != "_CHECKPOINTABLE_OBJECT_GRAPH":
            digest.update(value.tobytes())
    return digest.hexdigest()
