"""Small real runs on the digits that faults are put into, the undisturbed one, and the table of what came of it."""

import hashlib
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

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


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Runs, Ended]:
    """A run that nothing happened to; whoever uses its folder leaves it as it was."""
    runs = Runs(tmp_path_factory.mktemp("undisturbed") / "runs")
    ended = runs.run()
    assert ended.code == 0, ended.stderr
    return runs, ended


@pytest.fixture
def spare(undisturbed: tuple[Runs, Ended], tmp_path: Path) -> Iterator[Runs]:
    """The undisturbed run's folder, to be spoilt: it is put back, at the same path, which its metadata name."""
    runs, _ = undisturbed
    backup = tmp_path / "backup"
    shutil.copytree(runs.folder, backup, symlinks=True)
    yield runs
    shutil.rmtree(runs.folder)
    shutil.copytree(backup, runs.folder, symlinks=True)


@pytest.fixture
def fresh(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "runs")


@pytest.fixture
def table(record_property: Callable[[str, Any], None]) -> Callable[[str, str, str], None]:
    """Tell (fault, where, what came of it) for the table at the end."""
    return lambda fault, where, outcome: record_property("fault", (fault, where, " ".join(outcome.split())))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("fault", "where", "verdict", "outcome", box=None, header_style="bold")
    for verdict in ("passed", "failed"):
        for report in terminalreporter.stats.get(verdict, []):
            for name, row in getattr(report, "user_properties", []):
                if name == "fault":
                    table.add_row(row[0], row[1], verdict, row[2])
    if table.row_count:
        Console(width=160).print(table)
