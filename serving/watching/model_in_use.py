"""The model that scores, replaced as soon as a newer version is pushed."""

import gc
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from runtime.errors import UserError
from serving.client import Score
from serving.model.image_inputs import reading_of_model
from serving.model.versions import saved_model_folder
from serving.score_log import ScoreLog, read_calibration
from serving.scoring import local_scorer, with_maps_if_possible
from serving.server.logs import log_event

_CHECK_INTERVAL_S: Final = 5.0
_RECORD_INTERVAL_S: Final = 60.0


class ModelInUse:
    """The newest version in `folder`, or the SavedModel `folder` itself; a version that cannot be loaded is skipped."""

    def __init__(self, folder: Path, *, record_scores: Path | None = None) -> None:
        """Raises NoModelError or ServingError if there is no model that can be loaded."""
        self._folder = folder
        self._record_scores = record_scores
        self._refused: Path | None = None
        self._next_check_s = self._next_record_s = 0.0
        self._load(saved_model_folder(folder))

    def score(self, images: Sequence[bytes]) -> list[Score]:
        """The scores of encoded images, with maps if the model has any."""
        scores = self._scorer(images)
        if self._score_log is not None:
            self._score_log.add(np.array([score.score for score in scores]))
        return scores

    def refresh(self) -> None:
        """Load a newer version if there is one, and write the score counts where asked for; cheap if called often."""
        now_s = time.monotonic()
        if now_s >= self._next_record_s:
            self.write_score_counts()
            self._next_record_s = now_s + _RECORD_INTERVAL_S
        if now_s < self._next_check_s:
            return
        self._next_check_s = now_s + _CHECK_INTERVAL_S
        try:
            newest = saved_model_folder(self._folder)
        except UserError:  # removed: the loaded one stays in use
            return
        if newest in (self._path, self._refused):
            return
        try:
            self.write_score_counts()
            self._load(newest)
        except UserError as error:
            self._refused = newest
            log_event("version_refused", version=newest.name, error=str(error))
        else:
            gc.collect()
            log_event("version_available", version=newest.name)

    def write_score_counts(self) -> None:
        """Write the score counts since the version was loaded, for `autoencoder drift`."""
        if self._record_scores is None or self._score_log is None or not self._score_log.counts().images:
            return
        try:
            self._score_log.write(self._record_scores / f"{self.version}-{self._loaded_at_s}.json")
        except OSError as error:  # a full disk must not end the watch
            log_event("scores_not_recorded", error=str(error))

    def _load(self, path: Path) -> None:
        calibration = read_calibration(path) if self._record_scores else None
        self._scorer = with_maps_if_possible(partial(local_scorer, path))
        self._score_log = None if calibration is None else ScoreLog(calibration)
        self._path, self.version, self.reading = path, path.name, reading_of_model(path)
        self._loaded_at_s = int(time.time())
        now_s = time.monotonic()
        self._next_check_s, self._next_record_s = now_s + _CHECK_INTERVAL_S, now_s + _RECORD_INTERVAL_S
