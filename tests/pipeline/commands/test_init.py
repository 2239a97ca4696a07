"""`autoencoder init` writes a configuration that a run can plan, for every kind of folder."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result
from PIL import Image
from repository import REPOSITORY

from components.sources.registry import plan_source
from images.reading import reading_of
from pipeline.commands.init import init
from pipeline.configuration.configuration import Configuration
from pipeline.configuration.loading import load_configuration

RANDOM = np.random.default_rng(3)


def save(path: Path, *, size: tuple[int, int] = (40, 30), mode: str = "RGB", pixels: Any = None) -> None:
    """A picture of random pixels; `size` is width and height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    Image.fromarray(RANDOM.integers(0, 256, shape, np.uint8) if pixels is None else pixels).save(path)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(init, [str(argument) for argument in arguments])


def configured(folder: Path, tmp_path: Path) -> tuple[Configuration, str]:
    """(the configuration, what was printed); a run could plan it, and the printed command names the file."""
    output = tmp_path / "written.yaml"
    result = invoke(folder, "--output", output)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == f"next: autoencoder run {output}"
    configuration = load_configuration(output)
    assert plan_source(configuration.data).image_count > 0
    assert (configuration.data.source, configuration.data.path) == ("folder", str(folder))
    return configuration, result.stdout


def normality(configuration: Configuration) -> dict[str, int | None]:
    """Path -> is_anomaly as ImageExampleGen sees it."""
    normal = configuration.data.normal_labels
    images = [image for shard in plan_source(configuration.data).shards for image in shard.read()]
    return {i.image_id: int(i.label not in normal) if normal else i.is_anomaly for i in images}  # type: ignore[union-attr]


def test_a_flat_folder_keeps_its_small_images(tmp_path: Path) -> None:
    for number in range(4):
        save(tmp_path / f"Bottle Caps/{number}.png")
    configuration, printed = configured(tmp_path / "Bottle Caps", tmp_path)
    assert configuration.name == "bottle-caps"
    assert configuration.image.shape == (30, 40, 3)
    assert configuration.image.fit == "stretch"
    assert configuration.data.normal_labels == ()
    assert "4, no subfolders" in printed
    assert "all images count as normal" in printed


@pytest.mark.parametrize("good", ["good", "Good", "OK", "Normal"])
def test_a_class_with_a_normal_name_is_normal(tmp_path: Path, good: str) -> None:
    for path in (f"parts/{good}/1.jpg", f"parts/{good}/2.jpg", "parts/cracked/3.jpg"):
        save(tmp_path / path)
    configuration, printed = configured(tmp_path / "parts", tmp_path)
    assert normality(configuration) == {f"{good}/1.jpg": 0, f"{good}/2.jpg": 0, "cracked/3.jpg": 1}
    assert f"{good} 2" in printed
    assert "data.normal_labels" in printed


def test_classes_without_a_normal_name_are_listed_to_choose_from(tmp_path: Path) -> None:
    for path in ("flowers/tulip/1.png", "flowers/rose/2.png"):
        save(tmp_path / path)
    configuration, printed = configured(tmp_path / "flowers", tmp_path)
    assert configuration.data.normal_labels == ()
    assert '# normal_labels: ["rose", "tulip"]' in (tmp_path / "written.yaml").read_text()
    assert "all 2 count as normal" in printed


def test_named_splits_need_no_normal_labels_however_they_are_spelt(tmp_path: Path) -> None:
    for path in ("part/Train/Good/1.png", "part/valid/Good/2.png", "part/Test/OK/3.png", "part/Test/bent/4.png"):
        save(tmp_path / path)
    configuration, printed = configured(tmp_path / "part", tmp_path)
    assert configuration.data.normal_labels == ()
    assert list(normality(configuration).values()) == [0, 1, 0, 0]  # Test/OK, Test/bent, Train, valid
    assert "eval/Good 1, test/OK 1, test/bent 1, train/Good 1" in printed


def test_images_directly_in_train_are_as_normal_as_those_in_test_good(tmp_path: Path) -> None:
    for path in ("part/train/1.png", "part/test/good/2.png", "part/test/bent/3.png"):
        save(tmp_path / path)
    configuration, _ = configured(tmp_path / "part", tmp_path)
    assert normality(configuration) == {"train/1.png": 0, "test/good/2.png": 0, "test/bent/3.png": 1}


def test_splits_without_a_test_are_warned_about(tmp_path: Path) -> None:
    folder = tmp_path / "caps"
    for split in ("train", "valid"):
        save(folder / split / "good/a.png")
    output = invoke(folder, "--output", tmp_path / "caps.yaml").output
    assert "move some images to test/good in data.path" in output
    save(folder / "test/good/a.png")
    assert "warning" not in configured(folder, tmp_path)[1]


def test_a_folder_of_products_is_explained_and_nothing_is_written(tmp_path: Path) -> None:
    for product in ("bottle", "cable"):
        for path in ("train/good/1.png", "test/bent/2.png"):
            save(tmp_path / "mvtec" / product / path)
    result = invoke(tmp_path / "mvtec", "--output", tmp_path / "written.yaml")
    assert result.exit_code == 2
    assert f"set data.path to one of them, such as {tmp_path}/mvtec/bottle" in result.stderr
    assert not (tmp_path / "written.yaml").exists()


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_grey_that_is_stored_as_rgb_has_one_channel(tmp_path: Path, suffix: str) -> None:
    for number in range(3):
        grey = RANDOM.integers(0, 256, (30, 40, 1), np.uint8)
        save(tmp_path / f"grey/{number}.{suffix}", pixels=np.repeat(grey, 3, axis=2))
    configuration, printed = configured(tmp_path / "grey", tmp_path)
    assert configuration.image.channels == 1
    assert "grey, stored as RGB, so 1 channel" in printed


def test_one_small_red_mark_makes_images_coloured(tmp_path: Path) -> None:
    grey = np.full((30, 40, 3), 90, np.uint8)
    save(tmp_path / "grey/1.png", pixels=grey)
    grey[3, 4] = (200, 30, 30)
    save(tmp_path / "grey/2.png", pixels=grey)
    assert configured(tmp_path / "grey", tmp_path)[0].image.channels == 3


@pytest.mark.parametrize("largest", [2**16 - 1, 2**12 - 1, 2**10 - 1, 2**8 - 1])
def test_files_of_16_bits_keep_the_bits_that_they_use(tmp_path: Path, largest: int) -> None:
    pixels = RANDOM.integers(0, largest, (30, 40), np.uint16)
    pixels[0, 0] = largest
    save(tmp_path / "wide/1.png", pixels=pixels)
    save(tmp_path / "wide/2.tiff", pixels=pixels)
    configuration, printed = configured(tmp_path / "wide", tmp_path)
    assert configuration.image.channels == 1
    assert configuration.image.depth == 16
    assert configuration.image.range == ("full" if largest == 2**16 - 1 else (0, largest))
    assert f"files of 16 bits, of which {largest.bit_length()} are used" in printed


def test_values_without_black_and_white_get_a_range(tmp_path: Path) -> None:
    save(tmp_path / "floats/1.tiff", pixels=RANDOM.normal(0, 1000, (30, 40)).astype(np.float32))
    configuration, printed = configured(tmp_path / "floats", tmp_path)
    assert configuration.image.depth == 16
    assert configuration.image.model_dump()["range"] == {"percentiles": (0.1, 99.9)}
    assert "percentiles 0.1 and 99.9 become 0 and 1" in printed


def test_files_of_8_bits_among_those_of_16_leave_the_depth_at_8(tmp_path: Path) -> None:
    save(tmp_path / "mixed/1.png", pixels=RANDOM.integers(0, 4096, (30, 40), np.uint16))
    save(tmp_path / "mixed/2.png", pixels=RANDOM.integers(0, 256, (30, 40), np.uint8))
    configuration, printed = configured(tmp_path / "mixed", tmp_path)
    assert (configuration.image.depth, configuration.image.range) == (8, "full")
    assert "depth" not in printed


def test_mixed_aspect_ratios_are_padded_and_large_images_scaled(tmp_path: Path) -> None:
    for number, size in enumerate([(900, 300), (600, 300), (300, 300)]):
        save(tmp_path / f"mixed/{number}.png", size=size)
    configuration, printed = configured(tmp_path / "mixed", tmp_path)
    assert configuration.image.shape == (160, 320, 3)  # the median, 600x300, with about as many pixels as 224x224
    assert configuration.image.fit == "pad"
    assert "3 sizes, median 600x300" in printed
    assert "aspect ratios differ" in printed
    assert "defects below about 15 pixels may be lost" in printed  # 8 pixels of the scaled image


@pytest.mark.parametrize(
    ("size", "chosen"),
    [
        ((224, 224), (224, 224)),
        ((300, 100), (100, 300)),  # fewer pixels than 224x224
        ((1130, 460), (144, 352)),
        ((4000, 3000), (192, 256)),
        ((4000, 40), (32, 1024)),  # a side has at most 1024
        ((1500, 20), (20, 1024)),
    ],
)
def test_elongated_images_get_as_many_pixels_as_square_ones(
    tmp_path: Path, size: tuple[int, int], chosen: tuple[int, int]
) -> None:
    save(tmp_path / "one/1.png", size=size)
    configuration, _ = configured(tmp_path / "one", tmp_path)
    assert configuration.image.shape[:2] == chosen


def test_unreadable_and_other_files_are_named(tmp_path: Path) -> None:
    save(tmp_path / "parts/1.png")
    (tmp_path / "parts/2.png").write_bytes(b"not an image")
    (tmp_path / "parts/3.heic").touch()
    _, printed = configured(tmp_path / "parts", tmp_path)
    assert "1 of 2 inspected images (2.png: not an image in a supported format)" in printed
    assert "1 .heic file" in printed


@pytest.mark.parametrize(("broken", "stops"), [(1, False), (2, True)])
def test_more_unreadable_files_than_a_run_accepts_are_told_with_the_remedy(
    tmp_path: Path, broken: int, stops: bool
) -> None:
    """A run accepts 5 %, so 1 of 20."""
    for number in range(20):
        save(tmp_path / f"parts/{number}.png")
    for number in range(broken):
        (tmp_path / f"parts/{number}.png").write_bytes(b"not an image")
    _, printed = configured(tmp_path / "parts", tmp_path)
    assert f"{broken} of 20 inspected images" in printed
    remedy = "a run would stop, because these are more than data.max_reject_fraction, 5%: repair or remove them"
    assert (remedy in printed) == stops


def test_files_of_several_pages_are_counted_and_the_setting_for_them_named(tmp_path: Path) -> None:
    pages = [Image.fromarray(RANDOM.integers(0, 256, (30, 40), np.uint8)) for _ in range(3)]
    for number in range(2):
        save(tmp_path / f"parts/{number}.png")
        assert number or "  pages  " not in configured(tmp_path / "parts", tmp_path)[1]
        (tmp_path / "written.yaml").unlink(missing_ok=True)
        pages[0].save(tmp_path / f"parts/{number}.tif", save_all=True, append_images=pages[1:])
    _, printed = configured(tmp_path / "parts", tmp_path)
    assert "2 of 4 inspected files have several, 6 in all" in printed
    assert "unless image.page is all" in printed


def test_names_of_folders_and_files_cannot_control_the_terminal(tmp_path: Path) -> None:
    """Nor break the comments in the configuration."""
    for folder in ("\x1b[31mred", "two\nlines"):
        save(tmp_path / "parts" / folder / "1.png")
    (tmp_path / "parts" / "3.\x1b[2jx").touch()
    _, printed = configured(tmp_path / "parts", tmp_path)
    assert "%1B[31mred 1, two%0Alines 1" in printed
    assert "1 .%1B[2jx file" in printed
    assert "\x1b" not in printed


def test_a_folder_without_a_readable_image_is_bad_usage(tmp_path: Path) -> None:
    (tmp_path / "2.png").write_bytes(b"not an image")
    result = invoke(tmp_path, "--output", tmp_path / "written.yaml")
    assert result.exit_code == 2
    assert "none of 1 images can be read; 2.png: not an image" in result.stderr


def save_manifest(folder: Path, columns: str, *rows: str) -> Path:
    """Two images and a mask that are listed, beside one that is not."""
    for name in ("img/1.png", "img/2.png", "roi/1.png", "img/unlisted.png"):
        save(folder / name)
    manifest = folder / "parts.csv"
    manifest.write_text("\n".join([columns, *rows]) + "\n")
    return manifest


def test_a_manifest_gives_images_normality_regions_and_groups(tmp_path: Path) -> None:
    manifest = save_manifest(
        tmp_path / "line", "path,is_anomaly,roi,group", "img/1.png,0,roi/1.png,left", "img/2.png,1,,right"
    )
    output = tmp_path / "written.yaml"
    result = invoke(manifest, "--output", output)
    assert result.exit_code == 0, result.output
    configuration = load_configuration(output)
    assert (configuration.name, configuration.data.source) == ("parts", "csv")
    assert configuration.image.alpha == "roi"
    assert plan_source(configuration.data, reading_of(configuration.image)).image_count == 2
    assert "2, listed in the manifest" in result.stdout
    assert "known from the manifest" in result.stdout
    assert "2, from the column group" in result.stdout


def test_a_manifest_in_a_folder_is_pointed_to(tmp_path: Path) -> None:
    manifest = save_manifest(tmp_path / "line", "path,label", "img/1.png,good", "img/2.png,dent")
    (tmp_path / "line/prices.csv").write_text("article,price\n1,2\n")
    configuration, printed = configured(tmp_path / "line", tmp_path)
    assert "parts.csv lists 2 of these images" in printed
    assert f"to use it: autoencoder init {manifest}" in printed
    (tmp_path / "line/other.csv").write_text("path\nsomewhere/else.png\n")
    assert configuration.data.source == "folder"
    assert "parts.csv lists 2" in invoke(tmp_path / "line", "--output", tmp_path / "second.yaml").stdout


def test_large_images_come_with_a_line_for_tiles(tmp_path: Path) -> None:
    for number in range(2):
        save(tmp_path / f"wide/{number}.png", size=(1200, 200))
    configured(tmp_path / "wide", tmp_path)
    output = tmp_path / "written.yaml"
    text = output.read_text()
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("# image: "))
    lines[start - 2 : start + 1] = [lines[start].removeprefix("# ")]
    output.write_text("\n".join(lines))
    tiled = load_configuration(output).image
    assert tiled.shape == (200, 1200, 3)
    assert tiled.network_shape == (200, 256, 3)


def test_what_does_not_exist_is_neither_a_folder_nor_a_manifest(tmp_path: Path) -> None:
    result = invoke(tmp_path / "nothing.csv")
    assert result.exit_code == 2
    assert "no such folder or manifest" in result.stderr


def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    save(tmp_path / "parts/1.png")
    (tmp_path / "written.yaml").write_text("mine")
    result = invoke(tmp_path / "parts", "--output", tmp_path / "written.yaml")
    assert result.exit_code == 2
    assert "choose another file with --output, or another name with --name" in result.stderr
    assert (tmp_path / "written.yaml").read_text() == "mine"


def test_a_name_that_no_run_accepts_leaves_no_file(tmp_path: Path) -> None:
    save(tmp_path / "parts/1.png")
    result = invoke(tmp_path / "parts", "--output", tmp_path / "written.yaml", "--name", "My Parts")
    assert result.exit_code == 2
    assert "must consist of lower-case letters" in result.stderr
    assert not (tmp_path / "written.yaml").exists()


def test_the_name_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "parts/1.png")
    assert invoke("parts", "--name", "caps").exit_code == 0
    written = yaml.safe_load((tmp_path / "caps.yaml").read_text())
    assert (written["name"], written["data"]["path"]) == ("caps", "parts")


def test_training_and_evaluation_are_those_of_the_folder_preset(tmp_path: Path) -> None:
    save(tmp_path / "parts/1.png")
    configuration, _ = configured(tmp_path / "parts", tmp_path)
    preset = load_configuration(REPOSITORY / "configs/folder.yaml")
    assert (configuration.trainer, configuration.evaluation) == (preset.trainer, preset.evaluation)
