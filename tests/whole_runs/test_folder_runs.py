"""Whole runs on folders of photographs."""

import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from command_line import REPOSITORY, autoencoder, command
from local_runs import (
    COMPONENTS,
    DONE,
    FAILED,
    SMALL,
    names_that,
    run,
    states,
)
from PIL import Image

pytestmark = pytest.mark.slow


def part_of(size):
    """A mask [H, W], white on the disc that contains the button."""
    down, across = ((np.arange(side) + 0.5) / side - 0.5 for side in size)
    return np.hypot(down[:, None], across[None, :]) < 0.48


def assert_only_the_part_counts(model, source, folder):
    """The score of an image is the same to the last digit with noise around the part, and another with noise in it."""
    with Image.open(source) as image:
        pixels = np.asarray(image.convert("RGB"))
    inside = part_of(pixels.shape[:2])[..., None]
    noise = np.random.default_rng(5).integers(0, 256, pixels.shape, np.uint8)
    versions = {"sound": pixels, "around": np.where(inside, pixels, noise), "within": np.where(inside, noise, pixels)}
    for name, version in versions.items():
        Image.fromarray(np.dstack([version, inside * np.uint8(255)])).save(folder / f"{name}.png")
    code, lines, stderr = autoencoder(
        "score", "--model", model, "--format", "jsonl", *(folder / f"{name}.png" for name in versions)
    )
    assert code == 0, stderr
    sound, around, within = ({**json.loads(line), "path": ""} for line in lines.splitlines())
    assert sound == around
    assert within["score"] > sound["score"]


def test_the_files_are_listed_when_the_run_has_the_folder_to_itself(tmp_path, sample_images):
    """Images added while the run waits for another one are part of it."""
    images = Path(shutil.copytree(sample_images / "train/good", tmp_path / "images"))
    added = [path.rename(tmp_path / path.name) for path in sorted(images.iterdir())[:100]]
    folder = tmp_path / "runs/folder"
    folder.mkdir(parents=True)
    settings = [f"root={tmp_path / 'runs'}", f"data.path={images}"]
    arguments = ["run", "configs/folder.yaml", "--json", *(part for value in settings for part in ("--set", value))]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with (folder / ".lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = subprocess.Popen(
            command(*arguments), cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert waiting.stderr.readline().startswith(b"waiting for another run in")
        for path in added:
            path.rename(images / path.name)
        fcntl.flock(lock, fcntl.LOCK_UN)
        listed = next(line for line in waiting.stderr if b" images, log in" in line)
    waiting.kill()  # what follows is what every run does
    waiting.communicate()
    assert listed.startswith(f"folder: {len(list(images.iterdir()))} images, log in".encode())


def test_a_folder_of_colour_jpegs_one_folder_per_class(tmp_path, sample_images):
    sources = sorted((sample_images / "train/good").iterdir())
    for number, source in enumerate(sources):
        target = tmp_path / "images" / ("left" if number % 2 else "right") / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    (tmp_path / "images/left/broken.jpg").write_bytes(sources[0].read_bytes()[:300])
    tiles = "image.tiles={height_px: 64, width_px: 64}"
    overrides = [f"data.path={tmp_path / 'images'}", *SMALL, tiles, "evaluation.false_alarm_rate=0.1"]
    code, document = run("configs/folder.yaml", tmp_path / "runs", *overrides)
    assert code == DONE  # normal images alone are enough, also in tiles
    assert "serve it" in document["paths"]
    assert names_that("ran", document) == COMPONENTS
    examples = next((tmp_path / "runs/folder/artifacts/ImageExampleGen/examples").iterdir())
    rejects = [json.loads(line) for line in (examples / "rejects.jsonl").read_text().splitlines()]
    assert [reject["image_id"] for reject in rejects] == ["left/broken.jpg"]
    counts = json.loads((examples / "counts.json").read_text())
    assert sum(counts.values()) == len(sources) + 1
    gate = json.loads(next((tmp_path / "runs").glob("folder/artifacts/Evaluator/evaluation/*/gate.json")).read_text())
    assert set(gate["metrics_by_label"]) == {"left", "right"}


def test_a_rate_that_the_images_cannot_guarantee_is_raised_to_the_lowest_that_they_can(tmp_path):
    code, document = run("configs/folder.yaml", tmp_path, *SMALL, "evaluation.false_alarm_rate=0.001")
    assert code == DONE
    assert document["error"] is None
    [record] = (tmp_path / "folder/artifacts/Calibrator/calibration").glob("*/calibration.json")
    calibration = json.loads(record.read_text())
    assert (calibration["images"], calibration["method"]) == (300, "pooled")
    assert calibration["false_alarm_rate"] == pytest.approx(1 / 301)


def test_three_dozen_images_train_and_calibrate(tmp_path, sample_images):
    """With a region of interest for each image."""
    good = sorted((sample_images / "train/good").iterdir())[:36]
    rows = ["path,label,split,is_anomaly,roi"]
    for source in [*good, *sorted((sample_images / "test").glob("*/*"))]:
        target = tmp_path / "images" / source.relative_to(sample_images)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
        split, label, name = target.parts[-3:]
        with Image.open(source) as image:
            Image.fromarray(part_of(image.size[::-1])).save(target.with_suffix(".roi.png"))
        rows.append(f"images/{split}/{label}/{name},{label},{split},{int(label != 'good')},"
                    f"images/{split}/{label}/{target.with_suffix('.roi.png').name}")  # fmt: skip
    (tmp_path / "parts.csv").write_text("\n".join(rows))
    overrides = [*SMALL, "data.source=csv", f"data.path={tmp_path / 'parts.csv'}", "image.alpha=roi"]
    code, document = run("configs/folder.yaml", tmp_path / "runs", *overrides)
    assert code == DONE
    assert_only_the_part_counts(tmp_path / "runs/folder", good[0], tmp_path)
    assert document["metrics"]["auroc"] > 0.8
    [record] = (tmp_path / "runs/folder/artifacts/Calibrator/calibration").glob("*/calibration.json")
    calibration = json.loads(record.read_text())
    assert (calibration["images"], calibration["method"], calibration["false_alarm_rate"]) == (36, "cross", 0.05)
    assert (document["images"]["train"], document["images"]["eval"], document["model"]["cross_fitted"]) == (36, 0, True)


def test_too_many_unreadable_images_stop_the_run_before_training(tmp_path, sample_images):
    shutil.copytree(sample_images / "train/good", tmp_path / "images")
    for number in range(40):
        (tmp_path / "images" / f"bad{number}.png").write_text("no picture")
    code, document = run("configs/folder.yaml", tmp_path / "runs", f"data.path={tmp_path / 'images'}")
    assert code == FAILED
    assert states(document)["Trainer"] == "skipped"
    assert "40 of 340 images cannot be read" in document["error"]
    assert "bad0.png: not an image in a supported format" in document["error"]
