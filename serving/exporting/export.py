"""Exports a SavedModel to a file for another runtime, proves it there, and writes a README beside it."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from serving.exporting.conversion import convert
from serving.exporting.decision import decision_of
from serving.exporting.proof import Comparison, ExportRefusedError, compare, images_of, replayed, require_equal, served
from serving.exporting.readme import README_FILE, readme
from serving.exporting.runtimes import SUFFIXES, Target

STEM: Final = "model"


@dataclass(frozen=True)
class Exported:
    """The exported file, its size, and how it compares with the SavedModel."""

    path: Path
    size_bytes: int
    comparison: Comparison


def export_model(saved_model: Path, output: Path, *, target: Target, parity: Path) -> Exported:
    """Export the SavedModel to `output`, a folder, after replaying the images of the file `parity`.

    Raises NotExportableError, and ExportRefusedError if a score or verdict differs; nothing is written then.
    """
    images = images_of(str(parity))
    if not images:
        raise ExportRefusedError(f"{parity}: no image to replay; run the pipeline again")
    function = decision_of(saved_model)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{STEM}{SUFFIXES[target]}"
        convert(function, file, target=target)
        theirs, ours = replayed(file, images), served(saved_model, images)
        require_equal(images, ours, theirs)
        comparison = compare(ours, theirs)
        (Path(folder) / README_FILE).write_text(
            readme(function, file.name, target=target, comparison=comparison), encoding="utf-8"
        )
        size_bytes = sum(one.stat().st_size for one in Path(folder).iterdir() if one.stem == STEM)
        output.mkdir(parents=True, exist_ok=True)
        for one in Path(folder).iterdir():
            shutil.copyfile(one, output / one.name)
    return Exported(output / file.name, size_bytes, comparison)
