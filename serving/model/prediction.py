"""From a request's arrays to the answer's: the one path of gRPC, REST, warm-up and local scoring."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from schema.signatures import IMAGE_BYTES, SCORE_SIGNATURE
from serving.errors import ServingError, Status
from serving.model.batching import Batcher
from serving.model.image_inputs import all_as_viewed, refuse_unfit_images
from serving.model.loaded_model import (
    Arrays,
    LoadedModel,
    Signature,
    checked_inputs,
    checked_outputs,
)
from serving.server.settings import ServerSettings


@dataclass(frozen=True)
class Request:
    """What is asked of a model: a door, what goes in, and which outputs are wanted (none named: all)."""

    inputs: Arrays
    signature_name: str = ""
    output_filter: Sequence[str] = ()


class Predictor:
    """A loaded model, the checks before it, and the batching in front of it; safe for many threads."""

    def __init__(self, folder: Path, settings: ServerSettings) -> None:
        """Load the SavedModel in `folder`; raises what TensorFlow raises when it cannot be loaded."""
        self._model = LoadedModel(folder)
        self._settings = settings
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
        """The outputs of `request` by name; raises ServingError, naming the element that broke a batch."""
        signature = self.signature(request.signature_name)
        outputs = checked_outputs(signature, request.output_filter)
        inputs = checked_inputs(signature, request.inputs)
        if IMAGE_BYTES in inputs:
            images = inputs[IMAGE_BYTES].ravel().tolist()
            refuse_unfit_images(
                IMAGE_BYTES,
                images,
                max_image_pixels=self._settings.max_image_pixels,
                max_request_pixels=self._settings.max_request_pixels,
            )
            viewed = np.array(all_as_viewed(IMAGE_BYTES, images), dtype=object)
            inputs = {**inputs, IMAGE_BYTES: viewed.reshape(inputs[IMAGE_BYTES].shape)}
        try:
            return self._run(signature, inputs, outputs)
        except ServingError as error:
            if error.status is not Status.INVALID_ARGUMENT or not signature.is_batched:
                raise
            raise self._with_index(error, signature, inputs, outputs) from None

    def close(self) -> None:
        """Give the model's memory back; nothing may be running in it."""
        self._model.close()

    def _run(self, signature: Signature, inputs: Arrays, outputs: tuple[str, ...]) -> Arrays:
        if not (self._settings.enable_batching and signature.is_batched):
            return self._model.run(signature, inputs, outputs)
        return self._batcher(signature, outputs)(inputs)

    def _batcher(self, signature: Signature, outputs: tuple[str, ...]) -> Batcher:
        key = (signature.name, outputs)
        with self._lock:
            if key not in self._batchers:
                self._batchers[key] = Batcher(
                    lambda inputs: self._model.run(signature, inputs, outputs),
                    max_batch_size=self._settings.max_batch_size,
                )
            return self._batchers[key]

    def _with_index(
        self, error: ServingError, signature: Signature, inputs: Arrays, outputs: tuple[str, ...]
    ) -> ServingError:
        """The same error saying which element of the batch fails alone, found by halving; else as it was."""
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
