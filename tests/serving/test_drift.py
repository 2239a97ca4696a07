"""Drift is reported if the scores have changed, not if chance or the number of images explains it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats
from urls import grpc_url, rest_url

from pipeline.commands.drift import drift
from runtime.errors import DONE, FAILED, REFUSED
from schema.artifacts import RECORD_FILE
from schema.calibration_record import CalibrationRecord
from serving.client import score_images
from serving.drift import drift_of, read_scores
from serving.score_log import ScoreCounts, ScoreLog, ScoresError, count_scores, interval_edges
from serving.server.run import running_server
from serving.server.settings import ServerSettings
from serving.watching.results import COLUMNS, Position, Results


def _calibration(images: int = 1000, rate: float = 0.01, seed: int = 0) -> CalibrationRecord:
    scores = np.sort(np.random.default_rng(seed).gamma(4, 0.01, images)).astype(np.float32)
    rank = int(np.ceil((images + 1) * (1 - rate)))
    return CalibrationRecord(
        scores=tuple(map(float, scores)), images=images, threshold=float(scores[rank - 1]), false_alarm_rate=rate
    )


def _counts(calibration: CalibrationRecord, images: int, *, factor: float = 1.0, seed: int = 1) -> ScoreCounts:
    scores = factor * np.random.default_rng(seed).gamma(4, 0.01, images)
    return count_scores(scores.astype(np.float32), calibration)


def test_distance_is_kolmogorov_smirnov() -> None:
    """Within half a percent of SciPy's statistic on the scores themselves; alarms are counted exactly."""
    calibration = _calibration()
    scores = (1.3 * np.random.default_rng(2).gamma(4, 0.01, 5000)).astype(np.float32)
    found = drift_of(count_scores(scores, calibration), calibration)
    assert found.distance == pytest.approx(stats.ks_2samp(scores, calibration.scores).statistic, abs=0.006)
    assert found.alarm_rate == (scores > np.float32(calibration.threshold)).mean()


@pytest.mark.parametrize("images", [1, 30, 1000, 1_000_000])
def test_images_like_the_calibrations_are_not_drift(images: int) -> None:
    """Not even a million, with which every difference would be significant."""
    for seed in range(5):
        calibration = _calibration(seed=100 + seed)
        assert not drift_of(_counts(calibration, images, seed=seed), calibration).should_retrain


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_enough_scores_that_moved_in_either_direction_are_drift(factor: float) -> None:
    """Lower scores also show that the images differ from the training images. Three images are not enough."""
    calibration = _calibration()
    assert drift_of(_counts(calibration, 1000, factor=factor), calibration).should_retrain
    if factor < 1:
        assert not drift_of(_counts(calibration, 3, factor=factor), calibration).should_retrain


def test_too_many_alarms_are_drift() -> None:
    """One outlier in twenty images moves no distribution by ten points, but is five times the false-alarm rate."""
    calibration = _calibration()
    scores = np.array(calibration.scores[:950] + (9.0,) * 50, np.float32)
    found = drift_of(count_scores(scores, calibration), calibration)
    assert found.distance_at_least == 0
    assert found.should_retrain
    assert "5.0% of 1,000 images raise an alarm" in found.sentence


def test_bound_on_alarms_is_clopper_pearson() -> None:
    """As in SciPy's exact binomial test."""
    calibration = _calibration()
    counts = ScoreCounts(calibration.threshold, 500, 9, (500,) + (0,) * len(interval_edges(calibration)))
    bound = stats.binomtest(9, 500, alternative="greater").proportion_ci(0.99, method="exact").low
    assert drift_of(counts, calibration).alarm_rate_at_least == pytest.approx(bound)


def test_log_counts_like_a_single_count() -> None:
    """Answer by answer; scores that are not finite are alarms."""
    calibration = _calibration()
    scores = np.random.default_rng(3).gamma(4, 0.02, 300).astype(np.float32)
    log = ScoreLog(calibration)
    for part in np.split(scores, 10):
        log.add(np.append(part, np.float32("nan")))
    counts = log.counts()
    assert counts == count_scores(np.append(scores, [np.float32("inf")] * 10), calibration)
    assert (counts.images, counts.above_threshold) == (310, 10 + (scores > np.float32(calibration.threshold)).sum())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The parts of a model that `autoencoder drift` reads: its record and an empty saved_model.pb."""
    calibration = _calibration()
    folder = tmp_path / "serving" / "5"
    (folder / RECORD_FILE).parent.mkdir(parents=True)
    (folder / RECORD_FILE).write_text(json.dumps({"calibration": calibration.to_json()}))
    (folder / "saved_model.pb").touch()
    return folder


def _jsonl(path: Path, factor: float, threshold: float) -> Path:
    scores = factor * np.random.default_rng(4).gamma(4, 0.01, 500)
    rows = [{"path": "a.png", "verdict": "normal", "score": score, "threshold": threshold} for score in scores]
    failed = {"path": "b.png", "verdict": "failed", "score": None, "threshold": None}
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, failed]))
    return path


def test_command_reports_drift_in_a_sentence_and_its_exit_status(model: Path, tmp_path: Path) -> None:
    """0 for no drift, 3 if it is time to retrain, 1 for another model's scores."""
    threshold = _calibration().threshold

    def run(*arguments: str | Path) -> tuple[int, str]:
        result = CliRunner().invoke(drift, [*map(str, arguments), "--model", str(model.parent)])
        return result.exit_code, result.output

    assert run(_jsonl(tmp_path / "same.jsonl", 1.0, threshold))[0] == DONE
    code, text = run(_jsonl(tmp_path / "moved.jsonl", 3.0, threshold))
    assert (code, text.startswith("Retrain")) == (REFUSED, True)
    code, text = run("--json", tmp_path / "moved.jsonl")
    assert (code, json.loads(text)["images"]) == (REFUSED, 500)
    code, text = run(_jsonl(tmp_path / "others.jsonl", 1.0, 2 * threshold))
    assert (code, "come from a different model" in text) == (FAILED, True)


def _results(folder: Path, rows: list[dict[str, Any]]) -> None:
    """As a watch writes them, to both files."""
    results = Results(folder / "camera", Position(), max_bytes=10**6)
    with results.appended([dict.fromkeys(COLUMNS) | row for row in rows]):
        pass


def test_results_of_a_watch_count_once_and_alike_in_both_files(tmp_path: Path) -> None:
    """A score of 0 counts, one that is not finite is an alarm, and a failed image has none."""
    calibration = _calibration()
    images = [("normal", 0.0), ("normal", calibration.scores[500]), ("anomaly", None), ("failed", None)]
    rows = [
        {"verdict": verdict, "score": score, "threshold": None if verdict == "failed" else calibration.threshold}
        for verdict, score in images
    ]
    _results(tmp_path / "watch", rows)
    expected = count_scores(np.array([0.0, calibration.scores[500], np.inf], np.float32), calibration)
    jsonl, table = tmp_path / "watch" / "camera-000001.jsonl", tmp_path / "watch" / "camera-000001.csv"
    for paths in ([jsonl], [table], [table, jsonl], [tmp_path / "watch"], [jsonl, tmp_path / "watch"]):
        assert read_scores(paths, calibration) == expected


def test_command_refuses_a_model_whose_record_is_broken(model: Path, tmp_path: Path) -> None:
    """The message names the record; there is no traceback."""
    scores = _jsonl(tmp_path / "same.jsonl", 1.0, _calibration().threshold)
    for text in ("null", '{"calibration": null}', '{"calibration": {"scores": ["x"]}}', '{"calibration": {"sco'):
        (model / RECORD_FILE).write_text(text)
        result = CliRunner().invoke(drift, [str(scores), "--model", str(model.parent)])
        assert (result.exit_code, str(model / RECORD_FILE) in result.output) == (FAILED, True)


def test_server_records_scores_that_drift_reads(
    image_model: Path,
    settings_for: Callable[..., ServerSettings],
    normal_png: bytes,
    anomalous_png: bytes,
    tmp_path: Path,
) -> None:
    """One file per version, written on shutdown at the latest; a foreign file is refused by name."""
    record = image_model / "7" / RECORD_FILE
    scores = (0.0, 0.01, 0.02, 0.05)
    calibration = CalibrationRecord(scores=scores, images=4, threshold=0.05, false_alarm_rate=0.2)
    record.write_text(json.dumps({"calibration": calibration.to_json()}))
    try:
        with running_server(settings_for(image_model, record_scores=tmp_path / "scores")) as address:
            for server in (rest_url(address), grpc_url(address)):
                score_images([normal_png, normal_png, anomalous_png], server=server)
    finally:
        record.unlink()
    counts = read_scores([tmp_path / "scores"], calibration)
    assert (counts.images, counts.above_threshold) == (6, 2)
    assert counts.per_interval == (4, 0, 0, 0, 2)
    (tmp_path / "scores" / "other.json").write_text("[]")
    with pytest.raises(ScoresError, match=r"other\.json"):
        read_scores([tmp_path / "scores"], calibration)
