import json

import pytest

from schema.calibration_record import CalibrationRecord, conformal_rank

RECORD = {
    "score": "patch_max",
    "threshold": 0.25,
    "false_alarm_rate": 0.01,
    "images": 3,
    "method": "split",
    "scores": [0.0, 0.125, 0.25],
    "auroc_by_score": {"error": {"blob": 0.5}, "patch_max": {"blob": 0.75}},
    "map_of": "patch_max",
    "pixel_threshold": 0.5,
    "pixel_false_alarm_rate": 0.02,
    "smallest_region_percent": 0.1,
    "groups": [
        {
            "name": "hard",
            "images": 2,
            "typical": 0.5,
            "threshold": 0.75,
            "false_alarm_rate": 0.25,
            "pixel_threshold": 1.5,
            "pixel_false_alarm_rate": 0.125,
        }
    ],
    "source_fingerprint": "abc",
}


def test_record_reads_and_writes_the_file_unchanged():
    assert json.dumps(CalibrationRecord.from_json(RECORD).to_json()) == json.dumps(RECORD)


def test_record_written_before_maps_had_a_threshold_is_read():
    written = {name: value for name, value in RECORD.items() if name not in ("map_of", "pixel_threshold")}
    assert (CalibrationRecord.from_json(written).pixel_threshold, CalibrationRecord.from_json(written).map_of) == (
        None,
        "",
    )


def test_record_written_before_scores_were_kept_is_read():
    """Such a record names no score either: it was the error."""
    record = CalibrationRecord.from_json({"threshold": 0.25, "false_alarm_rate": 0.01, "images": 3})
    assert (record.score, record.scores) == ("error", ())
    assert (record.pixel_threshold, record.smallest_region_percent) == (None, 0.0)


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": None},
        {"images": "many"},
        {"pixel_threshold": "x"},
        {"scores": ["x"]},
        {"scores": 1},
        {"auroc_by_score": 1},
        {"auroc_by_score": {"error": 1}},
        {"groups": [{"name": "hard"}]},
        {"groups": ["hard"]},
    ],
)
def test_malformed_record_is_rejected(change):
    with pytest.raises((ValueError, TypeError)):
        CalibrationRecord.from_json({**RECORD, **change})


def test_incomplete_record_names_the_missing_field():
    with pytest.raises(ValueError, match="images missing"):
        CalibrationRecord.from_json({"threshold": 0.25, "false_alarm_rate": 0.01})


@pytest.mark.parametrize(("images", "rank"), [(1, 1), (99, 99), (100, 100), (199, 198), (6, 6)])
def test_the_rank_of_the_threshold_is_that_of_split_conformal_prediction(images, rank):
    assert conformal_rank(images, max(0.01, 1 / (images + 1))) == rank, "ceil((n + 1)(1 - rate)), at most n"


def test_no_image_can_be_the_threshold_of_a_rate_below_what_so_many_guarantee():
    assert conformal_rank(9, 0.05) == 10
