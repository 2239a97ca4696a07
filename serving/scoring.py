"""Scores for files of images, by a SavedModel here or a server elsewhere, a batch in memory at a time."""

import glob
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from images.formats import IMAGE_SUFFIXES
from runtime.imports import imported_for_good
from schema.signatures import DEFAULT_MODEL_NAME, IMAGE_BYTES, RECONSTRUCT_SIGNATURE, SCORE_SIGNATURE
from serving.client import Score, score_images, scores_from_columns
from serving.errors import ServingError, Status

BATCH_SIZE: Final = 32
MAX_BATCH_BYTES: Final = 16 * 1024 * 1024

Scorer = Callable[[Sequence[bytes]], list[Score]]
"""Scores encoded images; raises ServingError for all of them where one is at fault."""


@dataclass(frozen=True)
class FileScore:
    """One file: its score, or None and the problem that it could not be scored for."""

    path: Path
    score: Score | None
    problem: str = ""


ROW_COLUMNS: Final = ("path", "verdict", "score", "threshold", "p_value", "error", "problem")


def row_of(result: FileScore) -> dict[str, str | float | None]:
    """A file's result by ROW_COLUMNS; the verdict is normal, anomaly or failed, and what is no number is None."""
    if result.score is None:
        values: list[str | float | None] = ["failed", None, None, None, None]
    else:
        score = result.score
        numbers = (score.score, score.threshold, score.p_value, score.error)
        verdict = "anomaly" if score.is_anomaly else "normal"
        values = [verdict, *(value if math.isfinite(value) else None for value in numbers)]
    return dict(zip(ROW_COLUMNS, (str(result.path), *values, result.problem), strict=True))


def local_scorer(model: Path, *, with_maps: bool = False) -> Scorer:
    """A scorer by the SavedModel in the folder `model`; with reconstruction and error map where asked for.

    Raises ServingError (FAILED_PRECONDITION) when the model cannot be loaded.
    """
    with imported_for_good():
        import numpy as np
        import tensorflow as tf

        from serving.model.prediction import Predictor, Request
        from serving.server.settings import ServerSettings

    tf.get_logger().setLevel("ERROR")
    try:
        predictor = Predictor(model, ServerSettings(model_base_path=model, enable_batching=False))
    except Exception as error:  # TensorFlow's loader raises many kinds
        raise ServingError(Status.FAILED_PRECONDITION, f"{model} cannot be loaded: {error}") from error
    door = RECONSTRUCT_SIGNATURE if with_maps else SCORE_SIGNATURE

    def score(images: Sequence[bytes]) -> list[Score]:
        inputs = {IMAGE_BYTES: np.array(images, dtype=object)}
        return scores_from_columns(predictor.predict(Request(inputs, door)))

    return score


def server_scorer(server: str, *, model_name: str = DEFAULT_MODEL_NAME, with_maps: bool = False) -> Scorer:
    """A scorer by the model that a server (`http://…` or `grpc://…`) has under `model_name`."""
    return partial(score_images, server=server, model_name=model_name, with_maps=with_maps)


def image_files(arguments: Iterable[str]) -> Iterator[Path]:
    """The files meant, in order: a file as it is, the images below a folder, those that match a pattern.

    Raises FileNotFoundError for an argument that means nothing.
    """
    for argument in arguments:
        path = Path(argument)
        if path.is_file():
            yield path
            continue
        pattern = str(Path(glob.escape(argument)) / "**" / "*") if path.is_dir() else argument
        found = [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207 (Path.glob takes no absolute one)
        images = [path for path in found if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
        if not images:
            raise FileNotFoundError(f"{argument}: no such file, and no image is found by it")
        yield from images


def score_files(
    paths: Iterable[Path],
    scorer: Scorer,
    *,
    batch_size: int = BATCH_SIZE,
    max_batch_bytes: int = MAX_BATCH_BYTES,
) -> Iterator[FileScore]:
    """A result for every path, in order, holding at most one batch of files in memory.

    A file that cannot be read or scored yields its problem. Raises ServingError where the fault is the
    server's or the model's, not the image's.
    """
    batch: list[tuple[Path, bytes]] = []
    size_bytes = 0
    for path in paths:
        try:
            data = path.read_bytes()
        except OSError as error:
            yield from _score_batch(batch, scorer)
            batch, size_bytes = [], 0
            yield FileScore(path, None, f"cannot be read: {error.strerror or error}")
            continue
        if batch and (len(batch) == batch_size or size_bytes + len(data) > max_batch_bytes):
            yield from _score_batch(batch, scorer)
            batch, size_bytes = [], 0
        batch.append((path, data))
        size_bytes += len(data)
    yield from _score_batch(batch, scorer)


def _score_batch(batch: Sequence[tuple[Path, bytes]], scorer: Scorer) -> Iterator[FileScore]:
    """The results of one batch; where it is refused, of each half, down to the images that are at fault."""
    if not batch:
        return
    try:
        scores = scorer([data for _, data in batch])
    except ServingError as error:
        if error.status not in (Status.INVALID_ARGUMENT, Status.RESOURCE_EXHAUSTED):
            raise
        if len(batch) == 1:
            yield FileScore(batch[0][0], None, error.message.removeprefix(f"{IMAGE_BYTES}[0]: "))
            return
        middle = len(batch) // 2
        yield from _score_batch(batch[:middle], scorer)
        yield from _score_batch(batch[middle:], scorer)
        return
    for (path, _), score in zip(batch, scores, strict=True):
        yield FileScore(path, score)
