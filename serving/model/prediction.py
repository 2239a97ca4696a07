"""Checks, converts, batches and runs a request; gRPC, REST, warm-up and local scoring all use it."""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from runtime.cores import usable_cores
from schema.signatures import IMAGE_BYTES, SCORE_SIGNATURE, WARNING
from schema.usual_sizes import UsualSizes
from serving.errors import ServingError, Status
from serving.model.batching import Batcher
from serving.model.image_inputs import (
    checked_images,
    ends_of_model,
    preview_of,
    reading_of_model,
    usual_images_of_model,
)
from serving.model.loaded_model import Arrays, LoadedModel, Signature, checked_inputs, checked_outputs

_RUNS_AT_ONCE: Final = 2
"""A small run keeps one core busy, a larger one most of them; more runs at once would
only make batches smaller."""


@dataclass(frozen=True)
class Request:
    """Inputs for one signature (empty name: the default one) and the outputs to return (none named: all)."""

    inputs: Arrays
    signature_name: str = ""
    output_filter: Sequence[str] = ()


class Predictor:
    """A loaded model with input checks and batching; thread-safe."""

    def __init__(
        self,
        folder: Path,
        *,
        max_batch_size: int | None = None,
        max_image_pixels: float = math.inf,
        max_request_pixels: float = math.inf,
    ) -> None:
        """Load the SavedModel in `folder`; raises what TensorFlow raises when it cannot be loaded.

        Concurrent requests are batched up to `max_batch_size` images; None runs each by itself.
        """
        self._model = LoadedModel(folder)
        self._max_batch_size = max_batch_size
        self._reading = reading_of_model(folder)
        self._usual_images = usual_images_of_model(folder)
        self._ends = ends_of_model(folder)
        self._limits = {"max_image_pixels": max_image_pixels, "max_request_pixels": max_request_pixels}
        self._lock = threading.Lock()
        self._batchers: dict[tuple[str, tuple[str, ...]], Batcher] = {}
        self.signature_defs = self._model.signature_defs

    def signature(self, name: str) -> Signature:
        """The signature called `name` (empty: the default one), or FAILED_PRECONDITION."""
        try:
            return self._model.signatures[name or SCORE_SIGNATURE]
        except KeyError:
            message = f'Serving signature key "{name or SCORE_SIGNATURE}" not found.'
            raise ServingError(Status.FAILED_PRECONDITION, message) from None

    def predict(self, request: Request) -> Arrays:
        """The outputs of `request` by name; raises ServingError, which names the element that failed.

        A warning about each encoded image that is unlike the training images comes with them, unless some outputs are
        named.
        """
        signature = self.signature(request.signature_name)
        outputs = checked_outputs(signature, request.output_filter)
        inputs = checked_inputs(signature, request.inputs)
        warnings: Arrays = {}
        if IMAGE_BYTES in inputs:
            images = checked_images(inputs[IMAGE_BYTES], reading=self._reading, **self._limits)
            shape = inputs[IMAGE_BYTES].shape
            inputs = {**inputs, IMAGE_BYTES: np.array([one.encoded for one in images], object).reshape(shape)}
            if self._usual_images is not None and not request.output_filter:
                said = [self._usual_images.warning(one).encode() for one in images]
                warnings[WARNING] = np.array(said, object).reshape(shape)
        try:
            return self._run(signature, inputs, outputs) | warnings
        except ServingError as error:
            if error.status is not Status.INVALID_ARGUMENT or not signature.is_batched:
                raise
            raise self._with_index(error, signature, inputs, outputs) from None

    @property
    def usual_sizes(self) -> UsualSizes | None:
        """Of the training images; None for a model of a version that did not record them."""
        return None if self._usual_images is None else self._usual_images.sizes

    def preview(self, content: bytes) -> tuple[bytes, tuple[int, int]]:
        """A PNG of what an image file shows, for people, and the file's own height and width; raises ServingError."""
        return preview_of(content, max_image_pixels=self._limits["max_image_pixels"], ends=self._ends)

    def close(self) -> None:
        """Free the model's memory; no request may be running."""
        self._model.close()

    def _run(self, signature: Signature, inputs: Arrays, outputs: tuple[str, ...]) -> Arrays:
        if self._max_batch_size is None or not signature.is_batched:
            return self._model.run(signature, inputs, outputs)
        return self._batcher(signature, outputs, self._max_batch_size)(inputs)

    def _batcher(self, signature: Signature, outputs: tuple[str, ...], max_batch_size: int) -> Batcher:
        key = (signature.name, outputs)
        with self._lock:
            if key not in self._batchers:
                self._batchers[key] = Batcher(
                    lambda inputs: self._model.run(signature, inputs, outputs),
                    max_batch_size=max_batch_size,
                    runs_at_once=min(_RUNS_AT_ONCE, usable_cores()),
                )
            return self._batchers[key]

    def _with_index(
        self, error: ServingError, signature: Signature, inputs: Arrays, outputs: tuple[str, ...]
    ) -> ServingError:
        """The error of the element that fails by itself, found by bisection and named; else the given error."""
        start, stop = 0, len(next(iter(inputs.values())))
        found = error if stop == 1 else None
        while stop - start > 1:
            middle = (start + stop) // 2
            found = self._error_of(signature, _rows(inputs, start, middle), outputs)
            start, stop = (start, middle) if found else (middle, stop)
        found = found or self._error_of(signature, _rows(inputs, start, stop), outputs)
        if found is None or start == stop:
            return error
        return ServingError(found.status, f"{','.join(sorted(inputs))}[{start}]: {found.message}")

    def _error_of(self, signature: Signature, inputs: Arrays, outputs: tuple[str, ...]) -> ServingError | None:
        try:
            self._model.run(signature, inputs, outputs)
        except ServingError as error:
            return error
        return None


def _rows(inputs: Arrays, start: int, stop: int) -> Arrays:
    return {name: array[start:stop] for name, array in inputs.items()}
