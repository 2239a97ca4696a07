"""The server's Predict operation, independent of the protocol."""

import time
from collections.abc import Callable
from typing import TypeVar

from schema.signatures import IMAGE_BYTES, IS_ANOMALY, SCORE, THRESHOLD
from serving.errors import ServingError, Status
from serving.model.loaded_model import Arrays
from serving.model.prediction import Request
from serving.server.kept_images import KeptImages
from serving.server.logs import LOGGER, log_event
from serving.server.metrics import Metrics
from serving.server.model_host import ModelHost, ServedVersion

Answer = TypeVar("Answer")


class Service:
    """Runs requests on the version they name, counts them, and reports internal errors as INTERNAL."""

    def __init__(self, host: ModelHost, metrics: Metrics, kept: KeptImages | None = None) -> None:
        """`kept` receives a sample of the images that were answered."""
        self.host = host
        self.metrics = metrics
        self._kept = kept

    def predict(
        self, model_name: str, version: int | None, answer: Callable[[ServedVersion], Answer], *, api: str
    ) -> Answer:
        """The result of `answer` for the requested version; raises only ServingError."""
        started = time.perf_counter()
        status = "OK"
        try:
            with self.metrics.in_progress.track_inprogress(), self.host.lease(model_name, version) as served:
                return answer(served)
        except ServingError as error:
            status = error.status.name
            log_event("request_refused", model=model_name, api=api, status=status, error=error.message)
            raise
        except Exception as error:
            status = Status.INTERNAL.name
            LOGGER.exception("request_failed", extra={"fields": {"model": model_name, "api": api}})
            raise ServingError(Status.INTERNAL, f"{type(error).__name__} in the server; see its log") from None
        finally:
            # Arbitrary model names from clients must not create counters.
            known = model_name if model_name == self.host.settings.model_name else "unknown"
            self.metrics.count_request(known, api=api, status=status, seconds=time.perf_counter() - started)

    def run(self, served: ServedVersion, request: Request) -> Arrays:
        """The outputs for `request`; any scores among them are counted."""
        outputs = served.predictor.predict(request)
        if self._kept and IMAGE_BYTES in request.inputs:
            self._kept.offer(request.inputs[IMAGE_BYTES].ravel().tolist())
        if served.score_log is not None and outputs.keys() >= {SCORE, THRESHOLD, IS_ANOMALY}:
            # By the model's own threshold, also if the request has another one.
            served.score_log.add(outputs[SCORE])
            self.metrics.count_scores(served.number, outputs[SCORE] / served.score_log.threshold)
        return outputs
