"""A small task that is drawn here: what is read, what is measured, and what the file of results keeps."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from repository import REPOSITORY

from bench.detection.__main__ import main
from bench.detection.measurement import Measurement
from bench.detection.planned import Planned
from bench.detection.product import DEFAULT
from bench.detection.quality import Quality
from bench.detection.references import measure_reference
from bench.detection.results_file import ResultsFile
from bench.detection.table import document_of, row_of
from bench.detection.tasks import DEFECTS_VARIABLE, Task, find_tasks
from bench.timing import BenchmarkError
from pipeline.configuration.configuration import Configuration
from trainer.settings.image import ImageSettings

SIZE = ImageSettings(height_px=32, width_px=32, channels=3)
BOX = slice(16, 32)


def draw(folder, *, seed=0):
    """40 noisy grey images to learn from; of 20 test images, half have a bright square at a known position."""
    random = np.random.default_rng(seed)
    for place, count in (("train/good", 40), ("test/good", 10), ("test/spot", 10)):
        (folder / place).mkdir(parents=True)
        for number in range(count):
            pixels = random.normal(100, 4, (64, 64, 3))
            if place == "test/spot":
                pixels[BOX, BOX] += 60
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / place / f"{number}.png")
    (folder / "ground_truth" / "spot").mkdir(parents=True)
    mask = np.zeros((64, 64), np.uint8)
    mask[BOX, BOX] = 255
    for number in range(10):
        Image.fromarray(mask).save(folder / "ground_truth" / "spot" / f"{number}_mask.png")
    return folder


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return Task(draw(tmp_path_factory.mktemp("tasks") / "spots"))


def measurement(method="PaDiM", seed=0, auroc=0.9, verdict=None, **details):
    quality = Quality(auroc, 0.5, 0.75, float("nan"), float("nan"))
    return Measurement("spots", method, seed, quality, 12.0, 8.0, 900.0, verdict, details)


def test_a_task_yields_its_images_with_masks_at_their_size(task):
    batches = list(task.batches("test", SIZE))
    assert sum(len(batch.encoded) for batch in batches) == 20
    masks = np.concatenate([batch.masks for batch in batches])
    is_anomaly = np.concatenate([batch.is_anomaly for batch in batches])
    assert is_anomaly.sum() == 10
    assert (masks[is_anomaly == 1].sum(axis=(1, 2)) == 64).all()
    assert (masks[is_anomaly == 1][:, 8:16, 8:16] == 1).all()
    assert not masks[is_anomaly == 0].any()


def test_training_images_can_be_limited_and_the_seed_draws_them(task):
    def drawn(seed):
        return np.concatenate([batch.pixels for batch in task.batches("train", SIZE, limit=9, seed=seed)])

    assert len(drawn(0)) == 9
    assert np.array_equal(drawn(0), drawn(0))
    assert not np.array_equal(drawn(0), drawn(1))


@pytest.mark.parametrize("method", ["PCA-16", "PaDiM", "PatchCore"])
def test_a_reference_finds_obvious_defects_and_where_they_are(task, method):
    found = measure_reference(task, method, 0, SIZE)
    assert found.quality.image_auroc == 1.0
    assert found.quality.recall_at_1 == 1.0
    assert found.quality.pixel_auroc > 0.9
    assert found.training_s > 0
    assert found.peak_mb > 100


def test_a_reference_repeats_itself_with_the_same_seed(task):
    first, second = (measure_reference(task, "PatchCore", 3, SIZE).quality for _ in range(2))
    assert first == second


def test_time_per_image_is_processor_time_of_one_core():
    measure = """
import time
from bench.detection.measurement import milliseconds_per_image

def work(file):
    sum(number * number for number in range(200_000))

print(milliseconds_per_image(lambda file: time.sleep(0.002), [b""]), milliseconds_per_image(work, [b"", b""]))
"""
    # In a process of its own, as in the benchmark: time of the threads that other tests left behind would count too.
    measured = subprocess.run(
        [sys.executable, "-c", measure], cwd=REPOSITORY, check=True, capture_output=True, text=True
    )
    waiting, working = map(float, measured.stdout.split())
    assert waiting < 1.0 < working


def test_tasks_are_the_folders_given_and_always_the_sample_images(task, monkeypatch):
    assert [one.name for one in find_tasks(task.folder)] == ["spots", "sample_images"]
    assert [one.name for one in find_tasks(task.folder.parent)] == ["spots", "sample_images"]
    monkeypatch.setenv(DEFECTS_VARIABLE, str(task.folder.parent))
    assert [one.name for one in find_tasks(None)] == ["spots", "sample_images"]


def test_a_folder_without_tasks_is_an_error(tmp_path):
    with pytest.raises(BenchmarkError, match="train/good"):
        find_tasks(tmp_path)


def test_the_file_keeps_measurements_and_ignores_a_line_that_was_cut_off(tmp_path):
    path = tmp_path / "new" / "results.jsonl"
    ResultsFile(path).add("a", measurement(auroc=0.25))
    path.write_text(path.read_text() + '{"key": "b", "task": "spo')
    file = ResultsFile(path)
    assert file.get("a").quality.image_auroc == 0.25
    assert file.get("b") is None
    file.add("b", measurement(seed=1))
    assert ResultsFile(path).get("b").seed == 1


def test_a_measurement_is_reused_only_for_the_same_files_seed_and_settings(tmp_path):
    own = Task(draw(tmp_path / "own"))
    planned = Planned(own, "PaDiM", 0, Configuration(), ())
    larger = Configuration(image=SIZE)
    others = [
        dataclasses.replace(planned, seed=1),
        dataclasses.replace(planned, method="PatchCore"),
        dataclasses.replace(planned, configuration=larger),
    ]
    assert planned.key() == Planned(own, "PaDiM", 0, Configuration(), ()).key()
    assert planned.key() == dataclasses.replace(planned, configuration=Configuration(seed=1)).key()
    assert len({planned.key(), *(other.key() for other in others)}) == 4
    ours = dataclasses.replace(planned, method=DEFAULT)
    assert ours.key() != dataclasses.replace(ours, configuration=Configuration(seed=1)).key()
    before = planned.key()
    (own.folder / "train" / "good" / "0.png").unlink()
    assert planned.key() != before


def test_the_table_shows_means_with_the_largest_difference_and_the_gate():
    seeds = [measurement(auroc=auroc, verdict=verdict) for auroc, verdict in ((0.9, "blessed"), (0.96, "refused"))]
    assert row_of(seeds)[:7] == ("spots", "PaDiM", "93.0 (6.0)", "–", "–", "50.0 (0.0)", "75.0 (0.0)")
    assert row_of(seeds)[-1] == "1 of 2 blessed"


def test_the_table_shows_what_a_model_finds_at_its_own_threshold():
    seeds = [measurement(alarms=0.0, found=found) for found in (0.5, 0.6)]
    assert row_of(seeds)[7] == "0.0 (0.0), 55.0 (10.0)"
    assert row_of([measurement()])[7] == "–"


def test_the_document_holds_every_seed_and_is_strict_json():
    document = document_of([measurement(seed=0), measurement(seed=1)], {"x": "reason"}, {})
    text = json.dumps(document, allow_nan=False)
    assert [one["seed"] for one in json.loads(text)["measurements"]] == [0, 1]
    assert json.loads(text)["measurements"][0]["quality"]["pixel_auroc"] is None


def test_the_command_measures_once_and_reuses_what_it_measured(task, tmp_path):
    arguments = ["--data", str(task.folder), "--tasks", "spots", "--methods", "nearest in PCA-16", "--seeds", "2"]
    arguments += ["--set", "image.height_px=32", "--set", "image.width_px=32", "--results", str(tmp_path / "r.jsonl")]
    runs = [CliRunner().invoke(main, [*arguments, "--json", str(tmp_path / "d.json")]) for _ in range(2)]
    assert [run.exit_code for run in runs] == [0, 0], runs[0].output
    assert [run.output.count("measuring") for run in runs] == [2, 0]
    assert len(json.loads((tmp_path / "d.json").read_text())["measurements"]) == 2


@pytest.mark.parametrize("option", [["--methods", "magic"], ["--families", "magic"], ["--tasks", "magic"]])
def test_an_unknown_name_is_bad_usage(option):
    result = CliRunner().invoke(main, option)
    assert result.exit_code == 2
    assert "magic" in result.output


@pytest.mark.slow
def test_our_model_is_measured_through_its_own_run_whatever_the_verdict(task, tmp_path):
    fast = ["trainer.preset=dense", "trainer.epochs=1", "image.height_px=16", "image.width_px=16"]
    arguments = ["--data", str(task.folder), "--tasks", "spots", "--methods", DEFAULT, "--seeds", "1"]
    for override in fast:
        arguments += ["--set", override]
    result = CliRunner().invoke(
        main, [*arguments, "--results", str(tmp_path / "r.jsonl"), "--json", str(tmp_path / "d.json")]
    )
    assert result.exit_code == 0, result.output
    [found] = json.loads((tmp_path / "d.json").read_text())["measurements"]
    assert found["verdict"] in ("blessed", "refused")
    assert found["quality"]["image_auroc"] > 0.9
    assert 0 <= found["details"]["alarms"] <= found["details"]["found"] <= 1
