"""Results are appended whole or not at all, and the files rotate."""

import csv
import errno
import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from serving.watching.results import COLUMNS, KEPT_FILES, Position, Results


def row(number: int) -> dict[str, Any]:
    return dict.fromkeys(COLUMNS, None) | {"path": f"{number}.png", "regions": [{"left": 1.5}]}


def lines(folder: Path) -> list[str]:
    return [
        json.loads(line)["path"] for file in sorted(folder.glob("*.jsonl")) for line in file.read_text().splitlines()
    ]


def csv_lines(folder: Path) -> list[str]:
    return [
        line["path"] for file in sorted(folder.glob("*.csv")) for line in csv.DictReader(file.read_text().splitlines())
    ]


def append(results: Results, *numbers: int) -> None:
    with results.appended([row(number) for number in numbers]):
        pass


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_was_appended_after_the_committed_position_is_removed_at_the_next_start(tmp_path: Path) -> None:
    results = Results(tmp_path / "r", Position(), max_bytes=10**6)
    append(results, 1, 2)
    committed = results.position
    append(results, 3)
    assert lines(tmp_path) == ["1.png", "2.png", "3.png"]
    again = Results(tmp_path / "r", committed, max_bytes=10**6)
    assert lines(tmp_path) == csv_lines(tmp_path) == ["1.png", "2.png"]
    append(again, 4)
    assert lines(tmp_path) == csv_lines(tmp_path) == ["1.png", "2.png", "4.png"]


def test_a_new_file_that_was_not_committed_is_removed_at_the_next_start(tmp_path: Path) -> None:
    results = Results(tmp_path / "r", Position(), max_bytes=1)
    append(results, 1)
    committed = results.position
    append(results, 2)
    assert len(list(tmp_path.glob("*.jsonl"))) == 2
    append(Results(tmp_path / "r", committed, max_bytes=1), 3)
    assert lines(tmp_path) == csv_lines(tmp_path) == ["1.png", "3.png"]


def test_a_failed_append_leaves_nothing_behind(tmp_path: Path) -> None:
    results = Results(tmp_path / "r", Position(), max_bytes=10**6)
    append(results, 1)
    before = {path: path.read_bytes() for path in results.files()}
    with (
        largest_file(results.position.jsonl_bytes + 50),
        pytest.raises(OSError, match="File too large") as failed,
    ):
        append(results, 2)
    assert failed.value.errno == errno.EFBIG
    with pytest.raises(ValueError, match="state"), results.appended([row(3)]):
        raise ValueError("state cannot be written")
    assert {path: path.read_bytes() for path in results.files()} == before
    append(results, 4)
    assert lines(tmp_path) == csv_lines(tmp_path) == ["1.png", "4.png"]


def test_full_files_are_followed_by_new_ones_and_the_oldest_are_removed(tmp_path: Path) -> None:
    results = Results(tmp_path / "r", Position(), max_bytes=1)
    for number in range(KEPT_FILES + 5):
        append(results, number)
    kept = [f"{number}.png" for number in range(5, KEPT_FILES + 5)]
    assert lines(tmp_path) == csv_lines(tmp_path) == kept
    assert all(path.read_text().startswith("time,path,verdict") for path in tmp_path.glob("*.csv"))


def test_files_that_somebody_moved_away_are_begun_again(tmp_path: Path) -> None:
    results = Results(tmp_path / "r", Position(), max_bytes=10**6)
    append(results, 1)
    for path in results.files():
        path.rename(path.with_suffix(".old"))
    append(Results(tmp_path / "r", results.position, max_bytes=10**6), 2)
    assert lines(tmp_path) == csv_lines(tmp_path) == ["2.png"]


def test_the_regions_are_a_list_in_json_and_json_in_csv(tmp_path: Path) -> None:
    results = Results(tmp_path / "r", Position(), max_bytes=10**6)
    append(results, 1)
    jsonl, table = results.files()
    assert json.loads(jsonl.read_text())["regions"] == [{"left": 1.5}]
    [line] = csv.DictReader(table.read_text().splitlines())
    assert json.loads(line["regions"]) == [{"left": 1.5}]


def test_a_name_that_is_no_text_is_written_escaped(tmp_path: Path) -> None:
    results = Results(tmp_path / "r", Position(), max_bytes=10**6)
    with results.appended([row(1) | {"path": "a\udcff.png"}]):
        pass
    jsonl, table = results.files()
    assert json.loads(jsonl.read_text())["path"] == "a\udcff.png"
    assert "a\\udcff.png" in table.read_text()


def test_a_table_with_other_columns_is_followed_by_a_new_one(tmp_path: Path) -> None:
    results = Results(tmp_path / "r", Position(), max_bytes=10**6)
    append(results, 1)
    table = tmp_path / "r-000001.csv"
    of_an_older_version = table.read_text().replace("time,", "when,")
    table.write_text(of_an_older_version)
    again = Results(tmp_path / "r", results.position, max_bytes=10**6)
    append(again, 2)
    assert table.read_text() == of_an_older_version
    assert again.position.number == 2
    assert (tmp_path / "r-000002.csv").read_text().startswith("time,")
