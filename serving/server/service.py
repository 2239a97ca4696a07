"""The server's Predict operation, independent of the protocol."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from schema.signatures import IMAGE_BYTES, IS_ANOMALY, SCORE, THRESHOLD
from serving.errors import ServingError, Status
from serving.model.batching import Steps
from serving.model.loaded_model import Arrays
from serving.model.prediction import Request
from serving.server.kept_images import KeptImages
from serving.server.logs import LOGGER, log_event
from serving.server.metrics import Metrics
from serving.server.model_host import Requested, ServedVersion
from serving.server.served_models import ServedModels


class Service:
    """Runs requests on the version they name, counts them, and reports internal errors as INTERNAL."""

    def __init__(self, models: ServedModels, kept: KeptImages | None = None) -> None:
        """`kept` receives a sample of the images that were answered."""
        self.models = models
        self.metrics = Metrics(models)
        self._kept = kept

    @contextmanager
    def counted(self, requested: Requested, *, api: str) -> Iterator[None]:
        """Admits a request, which is answered during the block, and counts it; raises only ServingError."""
        started = time.perf_counter()
        status = "OK"
        try:
            with self.metrics.in_progress.track_inprogress(), self.models.admission(requested):
                yield
        except GeneratorExit:  # nobody waits for the answer any more
            status = Status.DEADLINE_EXCEEDED.name
            raise
        except ServingError as error:
            status = error.status.name
            log_event("request_refused", model=requested.name, api=api, status=status, error=error.message)
            raise
        except Exception as error:
            status = Status.INTERNAL.name
            LOGGER.exception("request_failed", extra={"fields": {"model": requested.name, "api": api}})
            raise ServingError(Status.INTERNAL, f"{type(error).__name__} in the server; see its log") from None
        finally:
            # Arbitrary model names from clients must not create counters.
            known = requested.name if self.models.serves(requested.name) else "unknown"
            self.metrics.count_request(known, api=api, status=status, seconds=time.perf_counter() - started)

    def run(self, served: ServedVersion, request: Request) -> Steps[Arrays]:
        """The outputs for `request`, in steps; any scores among them are counted."""
        outputs = yield from served.predictor.steps(request)
        if self._kept and IMAGE_BYTES in request.inputs:
            self._kept.offer(request.inputs[IMAGE_BYTES].ravel().tolist(), model_name=served.model_name)
        if served.score_log is not None and outputs.keys() >= {SCORE, THRESHOLD, IS_ANOMALY}:
            # By the model's own threshold, also if the request has another one.
            served.score_log.add(outputs[SCORE])
            per_threshold = outputs[SCORE] / served.score_log.threshold
            self.metrics.count_scores(per_threshold, model_name=served.model_name, version=served.number)
        return outputs
