"""What a run offers for review: its test images, its suspects, and the normal images that calibrated its model."""

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.metadata.history import latest_calibration
from pipeline.metadata.store import METADATA_FILE, MetadataSettings, connection_of
from runtime.errors import UsageError
from runtime.tfrecords import bytes_of, each_record, features_of, spread_records, text_of
from schema import features
from schema.artifacts import RECORD_FILE, SUSPECTS_FILE
from schema.calibration_record import CalibrationRecord
from schema.reviewed import REVIEWED_PREFIX
from serving.model.versions import RUN_SUBFOLDER
from serving.reviewing.candidates import SUSPECT, TEST, Candidate
from serving.reviewing.decisions import Subject, digest_of

_TEST_IMAGES = 5_000
_CALIBRATING_IMAGES = 256


@dataclass(frozen=True)
class ReviewableRun:
    """The newest run that calibrated a model: the model's folder, and where its images and suspects are."""

    model: Path
    examples: str
    calibration: str
    normal_label: str
    """The most frequent label among the held-out normal images."""
    normal_images: tuple[bytes, ...]
    """Some of them, encoded."""

    @property
    def rate(self) -> float:
        """The false-alarm rate of the model's threshold."""
        record = json.loads((self.model / RECORD_FILE).read_text(encoding="utf-8"))
        return CalibrationRecord.from_json(record["calibration"]).false_alarm_rate

    def candidates(self) -> Iterator[Candidate]:
        """The suspects, then at most 5,000 test images, evenly spaced, that no earlier review decided about."""
        yield from self.suspects()
        records = spread_records([_split(self.examples, features.TEST)], _TEST_IMAGES).as_numpy_iterator()
        for example in map(features_of, records):
            if not text_of(example, features.IMAGE_ID).startswith(REVIEWED_PREFIX):
                yield _candidate(example, TEST, split="")

    def suspects(self) -> Iterator[Candidate]:
        """The training images that look like anomalies."""
        file = Path(self.calibration, SUSPECTS_FILE)
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        p_values = {(line["split"], line["position"]): line["p_value"] for line in map(json.loads, lines)}
        for split in (features.TRAIN, features.EVAL):
            wanted = {position for of_split, position in p_values if of_split == split}
            for position, record in enumerate(each_record([_split(self.examples, split)]) if wanted else ()):
                if position in wanted:
                    yield _candidate(features_of(record), SUSPECT, split=split, p_value=p_values[split, position])


def folder_of_run(versions: Path) -> Path | None:
    """The folder of the run that pushes to the folder `versions`; None if no run on this machine does."""
    folder = versions.absolute().parent
    return folder if versions.name == RUN_SUBFOLDER and (folder / METADATA_FILE).exists() else None


def reviewable_run_in(folder: Path) -> ReviewableRun:
    """The newest run in a folder that holds its own metadata store; raises UserError as `reviewable_run` does."""
    return reviewable_run(connection_of(MetadataSettings(), folder), folder)


def reviewable_run(connection: Any, folder: Path) -> ReviewableRun:
    """The newest run in a pipeline's folder; raises UsageError if none has calibrated a model that is still there."""
    found = latest_calibration(connection, folder.absolute().name)
    if found is None or not all(Path(place).exists() for place in found):
        raise UsageError(f"{folder}: no run has calibrated a model yet, or its files were removed: autoencoder run")
    model, examples, calibration = found
    sample = spread_records([_split(examples, features.EVAL)], _CALIBRATING_IMAGES).as_numpy_iterator()
    normal = [features_of(record) for record in sample]
    labels = Counter(text_of(example, features.LABEL) for example in normal)
    return ReviewableRun(
        model=Path(model),
        examples=examples,
        calibration=calibration,
        normal_label=labels.most_common(1)[0][0],
        normal_images=tuple(bytes_of(example, features.IMAGE) for example in normal),
    )


def _split(examples: str, split: str) -> str:
    return f"{examples}/Split-{split}/*"


def _candidate(example: Any, source: str, *, split: str, p_value: float = math.nan) -> Candidate:
    content = bytes_of(example, features.IMAGE)
    label = text_of(example, features.LABEL)
    known = example[features.IS_ANOMALY].int64_list.value[0] if features.IS_ANOMALY in example else features.UNKNOWN
    mask = bytes_of(example, features.MASK) if features.MASK in example else b""
    name = text_of(example, features.IMAGE_ID).removeprefix(REVIEWED_PREFIX)
    return Candidate(
        subject=Subject(digest=digest_of(content), name=name, label="" if known == 1 else label, split=split),
        content=content,
        source=source,
        group=label,
        known_as=label if known == 1 else "",
        is_known_normal=known == 0 or bool(split),
        mask=mask,
        p_value=p_value,
    )
