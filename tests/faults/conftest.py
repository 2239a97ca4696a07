"""An undisturbed run, runs for injecting faults, and the table of outcomes."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_runs import Runs
from forked import Ended


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Runs, Ended]:
    """A run without faults, whose folder tests must not change."""
    runs = Runs(tmp_path_factory.mktemp("undisturbed") / "runs")
    ended = runs.run()
    assert ended.code == 0, ended.stderr
    return runs, ended


@pytest.fixture
def spare(undisturbed: tuple[Runs, Ended], tmp_path: Path) -> Iterator[Runs]:
    """The undisturbed run, for a test that changes its folder, which is restored afterwards at the same path."""
    runs, _ = undisturbed
    backup = tmp_path / "backup"
    shutil.copytree(runs.folder, backup, symlinks=True)
    yield runs
    shutil.rmtree(runs.folder)
    shutil.copytree(backup, runs.folder, symlinks=True)


@pytest.fixture
def fresh(tmp_path: Path) -> Runs:
    """Runs in an empty folder."""
    return Runs(tmp_path / "runs")


@pytest.fixture
def table(record_property: Callable[[str, Any], None]) -> Callable[[str, str, str], None]:
    """Records (fault, where, outcome) for the table at the end."""
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
