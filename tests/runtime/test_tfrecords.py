"""Counts of examples come from counts.json, and batches are limited by their size in memory."""

import json
import math

import pytest
import tensorflow as tf

from runtime.errors import UserError
from runtime.tfrecords import as_many_as_fit, count_records, files_of, require_count, spread_records


@pytest.fixture
def pattern(tmp_path):
    """The pattern of a split with the records 0 to 9 in three files."""
    folder = tmp_path / "Split-train"
    folder.mkdir()
    for number, rows in enumerate((range(4), range(4, 5), range(5, 10))):
        with tf.io.TFRecordWriter(str(folder / f"data-{number}")) as writer:
            for row in rows:
                writer.write(str(row).encode())
    (tmp_path / "counts.json").write_text(json.dumps({"train": 10, "eval": 3, "rejected": 1}))
    return f"{folder}/*"


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((28, 28, 1), 256), ((128, 128, 1), 256), ((1024, 1024, 3), 1), ((224, 224, 3), 27), ((9000, 9000, 3), 1)],
)
def test_batches_are_limited_by_bytes(shape, expected):
    assert as_many_as_fit(shape) == expected
    assert expected in (1, 256) or (expected + 1) * 4 * math.prod(shape) > 2**24 >= expected * 4 * math.prod(shape)


def test_counting_reads_no_records(pattern, tmp_path):
    for file in (tmp_path / "Split-train").iterdir():
        file.unlink()
    assert count_records([pattern]) == 10
    assert count_records([pattern, str(tmp_path / "Split-eval/*")]) == 13


@pytest.mark.parametrize(("at_most", "expected"), [(100, range(10)), (5, range(0, 10, 2)), (3, range(0, 10, 4))])
def test_a_sample_is_spread_evenly_over_all_files(pattern, at_most, expected):
    assert [int(record) for record in spread_records([pattern], at_most).as_numpy_iterator()] == [*expected]


def test_missing_records_are_reported(pattern):
    require_count(10, 10, [pattern])
    with pytest.raises(UserError, match=r"Split-train/\*: 9 records instead of the 10 in counts.json"):
        require_count(9, 10, [pattern])


@pytest.mark.parametrize("name", ["[a]", "*", "?", "a{b}", "[!x]*"])
def test_a_folder_s_name_is_not_a_pattern(name, tmp_path):
    for folder in (name, "a"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "data-0").touch()
    assert files_of([f"{tmp_path}/{name}/*"]) == [f"{tmp_path}/{name}/data-0"]
    assert files_of([f"{tmp_path}/nowhere/*"]) == []
