"""The task that detects changed data."""

import json
from pathlib import Path

import numpy as np
from click.testing import CliRunner
from PIL import Image

from components.settings import DataSettings
from components.sources.registry import planned_source
from images.reading import Reading
from pipeline.kubeflow.pods.data_version import data_version, main


def _folder(tmp_path: Path) -> DataSettings:
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    return DataSettings(source="folder", path=str(tmp_path))


def test_an_added_file_changes_the_version(tmp_path: Path) -> None:
    settings = _folder(tmp_path)
    before = data_version(settings, "")
    assert data_version(settings, "") == before
    Image.new("L", (4, 4)).save(tmp_path / "b.png")
    assert data_version(settings, "") != before


def test_a_named_version_does_not_read_the_data() -> None:
    missing = DataSettings(source="folder", path="/no/such/folder")
    assert data_version(missing, "2026-11") == "named: 2026-11"


def test_data_sets_with_fixed_content_are_not_downloaded() -> None:
    versions = {data_version(DataSettings(source=source), "") for source in ("mnist", "fashion_mnist")}
    assert len(versions) == 2


def test_excluded_images_change_any_version(tmp_path: Path) -> None:
    (tmp_path / "suspects.txt").write_text("0000001\n")
    exclude = str(tmp_path / "suspects.txt")
    for source, named in (("mnist", ""), ("mnist", "2026-11")):
        plain = data_version(DataSettings(source=source), named)
        without = data_version(DataSettings(source=source, exclude=exclude), named)
        assert without != plain
        assert without.startswith("named: ")


def test_what_people_decided_changes_any_version(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    manifest = tmp_path / "reviewed.csv"
    settings = DataSettings(source="mnist", reviewed=str(manifest))
    for named in ("", "2026-11"):
        versions = {data_version(DataSettings(source="mnist"), named)}
        for is_anomaly in (0, 1):
            manifest.write_text(f"path,is_anomaly\na.png,{is_anomaly}\n")
            versions.add(data_version(settings, named))
        assert len(versions) == 3
        assert all(version.startswith("named: ") for version in versions)


def test_data_that_need_another_reading_have_a_version(tmp_path: Path) -> None:
    """Arrays of 16 bits, and a manifest with regions of interest, are refused by a reading of 8 bits."""
    np.save(tmp_path / "images.npy", np.zeros((2, 4, 4), np.uint16))
    for name in ("a.png", "roi.png"):
        Image.new("L", (4, 4)).save(tmp_path / name)
    (tmp_path / "images.csv").write_text("path,roi\na.png,roi.png\n")
    output = tmp_path / "fingerprint"
    for source, file, reading in (("numpy", "images.npy", {"depth": 16}), ("csv", "images.csv", {"alpha": "roi"})):
        settings = DataSettings.model_validate({"source": source, "path": str(tmp_path / file)})
        given = {"settings": settings.model_dump_json(), "reading": json.dumps(reading), "output": str(output)}
        arguments = [word for name, value in given.items() for word in (f"--{name}", value)]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
        planned_source(settings, output.read_text(encoding="utf-8"), Reading.model_validate(reading))


def test_the_data_root_replaces_the_path(tmp_path: Path) -> None:
    settings = _folder(tmp_path)
    elsewhere = DataSettings(source="folder", path="/data").model_dump_json()
    output = tmp_path / "outputs" / "fingerprint"
    arguments = ["--settings", elsewhere, "--reading", "{}", "--data-root", str(tmp_path), "--output", str(output)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert output.read_text(encoding="utf-8") == data_version(settings, "")
