"""Images that may deserve a look, from a run, a watch or a folder, before the model has scored them."""

import glob
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runtime.errors import UsageError
from runtime.object_store import as_path
from serving.image_files import image_files
from serving.reviewing.decisions import Subject, digest_of, is_contested
from serving.reviewing.order import distance_from_threshold
from serving.reviewing.review_folder import ReviewFolder

TEST, SUSPECT, WATCH, FOLDER, KEPT, CONTESTED = "test image", "suspect", "watch", "folder", "kept", "contested"
"""Where a candidate comes from, as the page shows it."""
_STATE_SUFFIX: Final = ".sqlite"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An encoded image, what is known about it, and where it comes from."""

    subject: Subject
    content: bytes
    source: str
    group: str = ""
    """Class, or folder."""
    known_as: str = ""
    """The class that the data gives an image that it knows as a defect."""
    is_known_normal: bool = False
    """Whether the data says that it is normal, or the model was trained or calibrated with it."""
    mask: bytes = b""
    p_value: float = math.nan
    """Of a suspect: by the scores of training images, since the model's own p-value flatters what it has learnt."""


def contested(folder: ReviewFolder) -> Iterator[Candidate]:
    """The images that reviewers disagree about, from their copies."""
    for of_image in folder.standing().values():
        if is_contested(of_image):
            one = of_image[-1]
            subject = Subject(digest=one.digest, name=one.name, label=one.normal_label, split=one.split)
            yield Candidate(subject=subject, content=(folder.folder / one.path).read_bytes(), source=CONTESTED)


def watched(state: Path, *, label: str, rate: float, at_most: int) -> Iterator[Candidate]:
    """The images that a watch with this state file scored nearest to the threshold, if they are still there.

    `label`: of normal images. `rate`: the false-alarm rate. Raises UsageError if the watch left no results.
    """
    p_values = _results(state)
    distances = distance_from_threshold(list(p_values.values()), rate)
    nearest = [path for _, path in sorted(zip(distances, p_values, strict=True))]
    for path in nearest[:at_most]:
        try:
            content = as_path(path).read_bytes()
        except OSError:
            continue  # cameras' folders are cleared
        yield _of_file(path, content, WATCH, label)


def in_folder(folder: Path, *, label: str) -> Iterator[Candidate]:
    """The images in a folder and below, such as those that a server kept."""
    return of_files(image_files([str(folder)]), FOLDER, label=label)


def of_files(paths: Iterable[Path], source: str, *, label: str) -> Iterator[Candidate]:
    """The images in these files, without those that were removed meanwhile."""
    for path in paths:
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            continue  # a server replaces the oldest
        yield _of_file(str(path), content, source, label)


def _of_file(path: str, content: bytes, source: str, label: str) -> Candidate:
    subject = Subject(digest=digest_of(content), name=path, label=label)
    return Candidate(subject=subject, content=content, source=source, group=str(as_path(path).parent))


def _results(state: Path) -> dict[str, float]:
    """Path -> p-value of the latest result of each image that could be scored."""
    prefix = state.name.removesuffix(_STATE_SUFFIX)
    files = sorted(state.parent.glob(f"{glob.escape(prefix)}-[0-9]*.jsonl"))
    if not files:
        raise UsageError(
            f"--watch {state}: there are no results ({prefix}-*.jsonl) beside it; give the state file of a watch, such "
            "as watch/camera.sqlite"
        )
    found: dict[str, float] = {}
    for file in files:
        text = file.read_text(encoding="utf-8")
        for line in text[: text.rfind("\n") + 1].splitlines():  # a watch may be writing the last one
            row = json.loads(line)
            if row["verdict"] != "failed":
                found[row["path"]] = row["p_value"] if row["p_value"] is not None else math.nan
    return found
