"""The benchmark of ingestion measures the reading of images, not of rejects."""

import pytest

from bench.ingestion import _read_all, write_image_files
from bench.timing import BenchmarkError


def test_a_rejected_file_ends_the_measurement(tmp_path):
    folder = write_image_files(tmp_path / "files", 4)
    assert _read_all(folder) > 0
    (folder / "000003.png").write_bytes(b"no image")
    with pytest.raises(BenchmarkError, match="000003.png is rejected"):
        _read_all(folder)
