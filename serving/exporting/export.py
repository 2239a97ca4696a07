"""Exports a SavedModel to a file for another runtime, proves it there, and writes a README beside it."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from runtime.errors import UsageError
from schema.signatures import SCORE
from serving.exporting.conversion import convert
from serving.exporting.decision import decision_of, is_recalibrated, recalibrate
from serving.exporting.proof import (
    Comparison,
    ExportRefusedError,
    Image,
    compare,
    images_of,
    replayed,
    require_equal,
    served,
)
from serving.exporting.readme import README_FILE, readme
from serving.exporting.runtimes import SUFFIXES, Precision, Target

STEM: Final = "model"
_MOST_MEASURED: Final = 1000
_START_S: Final = 600.0
_PER_IMAGE_S: Final = 10.0


@dataclass(frozen=True)
class Exported:
    """The exported file, its size, and how it compares with the SavedModel."""

    path: Path
    size_bytes: int
    is_recalibrated: bool
    """Whether the threshold was recomputed in the file's precision."""
    comparison: Comparison


def export_model(
    saved_model: Path, output: Path, *, target: Target, precision: Precision, parity: str, held_out: str, test: str
) -> Exported:
    """Export the SavedModel to `output`, a folder, after replaying images in the target's runtime.

    In float32, the images of the file `parity` must have the same scores and verdicts. Otherwise the threshold is
    recomputed from the images of the split `held_out`, and differences are measured on the images of `test`; all
    three are patterns of TFRecords. Raises NotExportableError and ExportRefusedError; nothing is written then.
    """
    images = images_of(parity) if precision == "float32" else images_of(test, _MOST_MEASURED)
    if not images:
        raise ExportRefusedError(f"{parity}: no image to replay; run the pipeline again")
    function = decision_of(saved_model)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{STEM}{SUFFIXES[target]}"
        convert(function, file, target=target, precision=precision)
        recalibrated = precision != "float32" and is_recalibrated(saved_model)
        if recalibrated:
            kept = images_of(held_out)
            scores = np.array([row[SCORE] for row in replayed(file, kept, timeout_s=_timeout_s(kept))], np.float32)
            recalibrate(function, saved_model, scores)
            convert(function, file, target=target, precision=precision)
        theirs = replayed(file, images, timeout_s=_timeout_s(images))
        ours = served(saved_model, images)
        if precision == "float32":
            require_equal(images, ours, theirs)
        comparison = compare(images, ours, theirs)
        text = readme(function, file.name, target=target, precision=precision, comparison=comparison)
        (Path(folder) / README_FILE).write_text(text, encoding="utf-8")
        size_bytes = sum(one.stat().st_size for one in Path(folder).iterdir() if one.stem == STEM)
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--output {output}: cannot be created: {error.strerror}; choose another folder") from None
        for one in Path(folder).iterdir():
            shutil.copyfile(one, output / one.name)
    return Exported(output / file.name, size_bytes, recalibrated, comparison)


def _timeout_s(images: Sequence[Image]) -> float:
    """How long replaying them may take, so that a runtime that hangs does not hang the export."""
    return _START_S + _PER_IMAGE_S * len(images)
