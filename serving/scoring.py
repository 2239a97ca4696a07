"""Scores image files with a SavedModel, an exported file or a server, one batch in memory at a time."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from images.decoding import UnreadableImageError, as_viewed, page_count
from images.formats import MAX_PIXELS, page_id
from images.reading import EIGHT_BITS, Reading
from images.regions import Place, Region
from runtime.errors import UserError
from runtime.imports import imported_for_good
from runtime.object_store import AnyPath
from schema.signatures import ANOMALY_MAP, DEFAULT_MODEL_NAME, IMAGE_BYTES, LOCATE_SIGNATURE, SCORE_SIGNATURE
from serving.client import NO_LOGIN, Login, Score, score_images, scores_from_columns
from serving.errors import ServingError, Status, invalid_argument

if TYPE_CHECKING:
    from serving.exporting.runtimes import ExportedModel

BATCH_SIZE: Final = 32
MAX_BATCH_BYTES: Final = 16 * 1024 * 1024
MAX_BATCH_PIXELS: Final = 512_000_000

Scorer = Callable[[Sequence[bytes]], list[Score]]
"""Scores encoded images; raises ServingError if any of them is at fault."""


@dataclass(frozen=True)
class FileScore:
    """A file with its score, or with None and the reason why it could not be scored."""

    path: AnyPath
    score: Score | None
    problem: str = ""
    is_unread: bool = False
    """Whether the file could not even be read, so that nothing is known about its image."""
    page: int | None = None
    """The number of the page, counted from 0, if pages are images and the file has several."""

    @property
    def name(self) -> str:
        """The path, with the number of the page as in `stack.tif#3`."""
        return str(self.path) if self.page is None else page_id(str(self.path), self.page)


ROW_COLUMNS: Final = (
    "path", "verdict", "score", "threshold", "p_value", "error", "group", "regions", "problem", "warning",
    "strongest",
)  # fmt: skip


def row_of(result: FileScore) -> dict[str, Any]:
    """A file's result by ROW_COLUMNS: verdict normal, anomaly or failed; None for missing or non-finite numbers.

    `group` is the variant whose threshold applies, or None if the model has none. `regions` is a list of dictionaries
    with the fields of `Region`, or None if the model has no anomaly map. `strongest` has the fields of `Place` for an
    anomaly without regions, otherwise it is None. `warning` is `Score.warning`.
    """
    strongest = None
    if result.score is None:
        values: list[Any] = ["failed", *[None] * 6]
    else:
        score = result.score
        numbers = (score.score, score.threshold, score.p_value, score.error)
        verdict = "anomaly" if score.is_anomaly else "normal"
        regions = score.regions
        place = None if regions else score.strongest  # which looks for the regions again
        strongest = place and _rounded(place)
        values = [
            verdict,
            *(value if math.isfinite(value) else None for value in numbers),
            score.group,
            None if regions is None else [_rounded(region) for region in regions],
        ]
    warning = result.score.warning if result.score else ""
    return dict(zip(ROW_COLUMNS, (result.name, *values, result.problem, warning, strongest), strict=True))


def csv_row(row: dict[str, Any]) -> dict[str, Any]:
    """The same row for a CSV file, with `regions` and `strongest` as JSON."""
    return row | {name: None if row[name] is None else json.dumps(row[name]) for name in ("regions", "strongest")}


def _rounded(found: Region | Place) -> dict[str, float]:
    return {name: round(value, 4) for name, value in asdict(found).items()}


def with_maps_if_possible(scorer: Callable[..., Scorer]) -> Scorer:
    """A scorer with maps, or without them once the model turns out to have none."""
    current, can_locate = scorer(with_maps=True), True

    def score(images: Sequence[bytes]) -> list[Score]:
        nonlocal current, can_locate
        try:
            return current(images)
        except ServingError as error:
            if not (can_locate and lacks_maps(error)):
                raise
        current, can_locate = scorer(with_maps=False), False
        return current(images)

    return score


def with_maps_of_alarms(scorer: Callable[..., Scorer]) -> Scorer:
    """A scorer with the maps of anomalies only, if the model has any: a server's answers with maps are large."""
    plain, located = scorer(with_maps=False), with_maps_if_possible(scorer)

    def score(images: Sequence[bytes]) -> list[Score]:
        scores = plain(images)
        alarms = [index for index, one in enumerate(scores) if one.is_anomaly]
        if alarms:
            for index, one in zip(alarms, located([images[index] for index in alarms]), strict=True):
                scores[index] = one
        return scores

    return score


def lacks_maps(error: ServingError) -> bool:
    """Whether a request for anomaly maps failed because the model has none."""
    return error.status is Status.FAILED_PRECONDITION and LOCATE_SIGNATURE in error.message


def local_scorer(model: Path, *, with_maps: bool = False) -> Scorer:
    """A scorer that runs the SavedModel in the folder `model`; `with_maps` adds anomaly maps and regions.

    Raises ServingError (FAILED_PRECONDITION) if the model cannot be loaded.
    """
    with imported_for_good():
        import numpy as np
        import tensorflow as tf

        from serving.model.prediction import Predictor, Request

    tf.get_logger().setLevel("ERROR")
    try:
        predictor = Predictor(model, max_image_pixels=MAX_PIXELS, max_request_pixels=MAX_BATCH_PIXELS)
    except Exception as error:  # TensorFlow's loader raises many types
        raise ServingError(Status.FAILED_PRECONDITION, f"{model} cannot be loaded: {error}") from error
    signature = LOCATE_SIGNATURE if with_maps else SCORE_SIGNATURE

    def score(images: Sequence[bytes]) -> list[Score]:
        inputs = {IMAGE_BYTES: np.array(images, dtype=object)}
        return scores_from_columns(predictor.predict(Request(inputs, signature)), images)

    return score


def exported_scorer(file: Path, *, with_maps: bool = False) -> Scorer:
    """A scorer that runs an exported file in its own runtime, without TensorFlow.

    Raises UsageError for another kind of file, and ServingError (FAILED_PRECONDITION) if it cannot be loaded.
    """
    from serving.exporting.runtimes import ExportedModel

    try:
        model = ExportedModel(file)
    except UserError:
        raise
    except Exception as error:  # each runtime raises types of its own
        raise ServingError(Status.FAILED_PRECONDITION, f"{file} cannot be loaded: {error}") from error

    def score(images: Sequence[bytes]) -> list[Score]:
        return [_score_of_one(model, index, image, with_maps=with_maps) for index, image in enumerate(images)]

    return score


def _score_of_one(model: "ExportedModel", index: int, image: bytes, *, with_maps: bool) -> Score:
    if (pages := page_count(image)) > 1:
        raise invalid_argument(
            f"{IMAGE_BYTES}[{index}]: the file has {pages} pages, and an exported model does not tell whether each is "
            "an image: save the pages as files, or score with the SavedModel"
        )
    try:
        outputs = model(image)
    except UnreadableImageError as error:
        raise invalid_argument(f"{IMAGE_BYTES}[{index}]: {error}") from None
    if not with_maps:
        outputs.pop(ANOMALY_MAP, None)
    return scores_from_columns(outputs, [image])[0]


def server_scorer(
    server: str, *, model_name: str = DEFAULT_MODEL_NAME, with_maps: bool = False, login: Login = NO_LOGIN
) -> Scorer:
    """A scorer that asks the server at `http://…` or `grpc://…` for the model `model_name`."""
    return partial(score_images, server=server, model_name=model_name, with_maps=with_maps, login=login)


def score_files(
    paths: Iterable[AnyPath],
    scorer: Scorer,
    *,
    reading: Reading = EIGHT_BITS,
    batch_size: int = BATCH_SIZE,
    max_batch_bytes: int = MAX_BATCH_BYTES,
) -> Iterator[FileScore]:
    """A result for every path, in order, with at most one batch of images in memory.

    If the `reading` takes all pages of a file, each has a result. A file that cannot be read or scored yields its
    problem. Raises ServingError if the server or the model fails.
    """
    batch: list[tuple[FileScore, bytes]] = []
    size_bytes = 0
    for image, data in _images_of(paths, reading):
        is_full = data is not None and (len(batch) == batch_size or size_bytes + len(data) > max_batch_bytes)
        if batch and (data is None or is_full):
            yield from _score_batch(batch, scorer)
            batch, size_bytes = [], 0
        if data is None:
            yield image
            continue
        batch.append((image, data))
        size_bytes += len(data)
    yield from _score_batch(batch, scorer)


def _images_of(paths: Iterable[AnyPath], reading: Reading) -> Iterator[tuple[FileScore, bytes | None]]:
    """Each image, not scored yet, with its encoded bytes, or with its problem and None."""
    for path in paths:
        try:
            data = path.read_bytes()
        except OSError as error:
            yield FileScore(path, None, f"cannot be read: {error.strerror or error}", is_unread=True), None
            continue
        pages = page_count(data) if reading.page == "all" else 1
        if pages == 1:
            yield FileScore(path, None), data
            continue
        for page in range(pages):
            try:
                yield FileScore(path, None, page=page), as_viewed(data, reading, page=page)
            except UnreadableImageError as error:
                yield FileScore(path, None, str(error), page=page), None


def _score_batch(batch: Sequence[tuple[FileScore, bytes]], scorer: Scorer) -> Iterator[FileScore]:
    """The results of a batch; if it is refused, of each half, down to the images at fault."""
    if not batch:
        return
    try:
        scores = scorer([data for _, data in batch])
    except ServingError as error:
        if error.status not in (Status.INVALID_ARGUMENT, Status.RESOURCE_EXHAUSTED):
            raise
        if len(batch) == 1:
            yield replace(batch[0][0], problem=error.message.removeprefix(f"{IMAGE_BYTES}[0]: "))
            return
        middle = len(batch) // 2
        yield from _score_batch(batch[:middle], scorer)
        yield from _score_batch(batch[middle:], scorer)
        return
    for (image, _), score in zip(batch, scores, strict=True):
        yield replace(image, score=score)
