"""A pipeline's name belongs to one product, wherever its images lie."""

import os
import shutil
from pathlib import Path

import pytest
from command_line import autoencoder
from PIL import Image

from components.sources.registry import plan_source
from pipeline.configuration.configuration import Configuration, ConfigurationError
from pipeline.local.product import record_product, require_same_product


def images(folder: Path, grey: int) -> Path:
    folder.mkdir(parents=True)
    for number in range(3):
        Image.new("L", (6, 5), grey + number).save(folder / f"{number}.png")
        os.utime(folder / f"{number}.png", (grey, grey))
    return folder


def configured(path: Path | str, source: str = "folder") -> Configuration:
    return Configuration.model_validate({"name": "part", "data": {"source": source, "path": str(path)}})


def checked(configuration: Configuration, folder: Path) -> None:
    require_same_product(configuration, plan_source(configuration.data).fingerprint, folder)


@pytest.fixture
def bottle(tmp_path: Path) -> Path:
    """The images of a finished run in `tmp_path`."""
    path = images(tmp_path / "bottle", 10)
    configuration = configured(path)
    record_product(configuration, plan_source(configuration.data).fingerprint, tmp_path)
    return path


def test_a_first_run_may_learn_anything(tmp_path: Path) -> None:
    checked(configured(images(tmp_path / "bottle", 10)), tmp_path)


def test_images_in_another_folder_are_refused_with_both_remedies(bottle: Path, tmp_path: Path) -> None:
    cable = images(tmp_path / "cable", 99)
    with pytest.raises(ConfigurationError) as refused:
        checked(configured(cable), tmp_path)
    assert f"part's earlier runs learnt the images in folder {bottle}, and this run's are in folder {cable}" in str(
        refused.value
    )
    assert "--set name=..." in str(refused.value)
    assert "--same-product" in str(refused.value)


def test_images_that_were_moved_unchanged_are_the_same(bottle: Path, tmp_path: Path) -> None:
    checked(configured(shutil.move(bottle, tmp_path / "archive")), tmp_path)


def test_a_copy_with_one_more_image_is_not_the_same(bottle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(bottle, tmp_path / "copy")
    Image.new("L", (6, 5), 200).save(copy / "new.png")
    with pytest.raises(ConfigurationError):
        checked(configured(copy), tmp_path)


def test_images_may_change_in_place(bottle: Path, tmp_path: Path) -> None:
    Image.new("L", (6, 5), 200).save(bottle / "new.png")
    checked(configured(f"{bottle}/"), tmp_path)


def test_a_relative_path_is_the_place_that_it_leads_to(
    bottle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bottle / "0.png").unlink()
    monkeypatch.chdir(tmp_path)
    checked(configured("bottle/../bottle"), tmp_path)


def test_a_public_data_set_is_the_same_wherever_its_files_lie(tmp_path: Path) -> None:
    downloaded = Configuration.model_validate({"data": {"source": "mnist"}})
    record_product(downloaded, "before", tmp_path)
    require_same_product(configured("/data/mnist", "mnist"), "after", tmp_path)
    with pytest.raises(ConfigurationError):
        require_same_product(configured("/data/mnist", "idx"), "after", tmp_path)


def test_the_command_ends_with_bad_usage_and_an_option_allows_it(bottle: Path, tmp_path: Path) -> None:
    """With the option the run starts, and fails because three images are too few for three splits."""
    cable = images(tmp_path / "cable", 99)
    (tmp_path / "runs/folder").mkdir(parents=True)
    shutil.move(tmp_path / ".product", tmp_path / "runs/folder")
    arguments = ("run", "configs/folder.yaml", "--set", f"root={tmp_path / 'runs'}", "--set", f"data.path={cable}")
    code, stdout, stderr = autoencoder(*arguments)
    assert (code, stdout) == (2, "")
    assert "earlier runs learnt the images in" in stderr
    code, stdout, stderr = autoencoder(*arguments, "--same-product")
    assert code == 1
    assert "no images in split" in stdout
