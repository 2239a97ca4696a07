"""This project's models, measured as a user gets them: `autoencoder run`, then the SavedModel's signatures."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.detection.measurement import Measurement, milliseconds_per_image, peak_memory_here_mb
from bench.detection.method import Findings
from bench.detection.quality import measure_quality
from bench.detection.tasks import Batch, Task
from bench.timing import COMMAND_LINE, BenchmarkError, peak_memory_mb, run_command
from runtime.errors import DONE, REFUSED
from schema.features import TEST
from schema.signatures import ERROR_MAP, IMAGE_BYTES, IS_ANOMALY, RECONSTRUCT_SIGNATURE, SCORE, SCORE_SIGNATURE
from trainer.settings.image import ImageSettings

CONFIGURATION: Final = "configs/folder.yaml"
DEFAULT: Final = "default"
"""The method that only sets the path, the seed, and the run's name and folder."""
_NAME = "bench"
_ANOMALY_MAP = "anomaly_map"
"""In the score's own terms; models without it have only the error's map."""
_EXCERPT = 300


def measure_product(task: Task, method: str, seed: int, image: ImageSettings, overrides: Sequence[str]) -> Measurement:
    """Run the pipeline in a temporary folder with DEFAULT or the name of a family, and measure its model.

    A refused model is measured too. Call it in a new process.
    """
    with tempfile.TemporaryDirectory() as root:
        settings = {"name": _NAME, "root": root, "seed": seed, "data.path": task.folder}
        family = [] if method == DEFAULT else [f"--set=trainer={json.dumps({'preset': method})}"]
        ours = [f"--set={key}={value}" for key, value in settings.items()]
        given = [f"--set={override}" for override in overrides]
        command = [*COMMAND_LINE, "run", CONFIGURATION, "--json", *family, *given, *ours]
        output, run_s = run_command(command, exit_codes=(DONE, REFUSED))
        document = json.loads(output)
        folder = Path(root, _NAME)
        model = _Model(_calibrated_model(folder))
        quality = measure_quality(task.batches(TEST, image), model.findings)
        files = next(task.batches(TEST, image)).encoded
        memory = {"run_peak_mb": peak_memory_mb(folder), "scoring_peak_mb": peak_memory_here_mb()}
        return Measurement(
            task.name,
            method,
            seed,
            quality,
            training_s=_seconds(document, "Trainer"),
            ms_per_image=milliseconds_per_image(model.score, files),
            peak_mb=max(memory.values()),
            verdict="blessed" if document["blessed"] else "refused",
            details={"run_s": run_s, "missed_bounds": _missed(document), **memory, **model.alarms()},
        )


class _Model:
    """An exported SavedModel, loaded as the local server loads it; remembers which images raised an alarm."""

    def __init__(self, folder: Path) -> None:
        from serving.model.loaded_model import LoadedModel

        self._loaded = LoadedModel(folder)
        outputs = self._loaded.signatures[RECONSTRUCT_SIGNATURE].outputs
        self._map = _ANOMALY_MAP if _ANOMALY_MAP in outputs else ERROR_MAP
        self._alarms: list[tuple[int, int]] = []

    def findings(self, batch: Batch) -> Findings:
        outputs = self._run(RECONSTRUCT_SIGNATURE, batch.encoded, (SCORE, IS_ANOMALY, self._map))
        self._alarms += zip(batch.is_anomaly.tolist(), outputs[IS_ANOMALY].tolist(), strict=True)
        return Findings(outputs[SCORE], outputs[self._map])

    def score(self, file: bytes) -> Any:
        return self._run(SCORE_SIGNATURE, [file], (SCORE, IS_ANOMALY))

    def alarms(self) -> dict[str, float]:
        """Shares of the sound and of the defective test images that raise an alarm at the model's own threshold."""
        return {
            name: float(np.mean([alarm for anomalous, alarm in self._alarms if anomalous == kind]))
            for name, kind in (("alarms", 0), ("found", 1))
        }

    def _run(self, signature: str, files: Sequence[bytes], outputs: tuple[str, ...]) -> dict[str, Any]:
        return self._loaded.run(self._loaded.signatures[signature], {IMAGE_BYTES: np.array(files, object)}, outputs)


def _calibrated_model(folder: Path) -> Path:
    """The SavedModel that the Calibrator exported, blessed or not."""
    found = sorted((folder / "artifacts" / "Calibrator" / "model").glob("*/Format-Serving"))
    if len(found) != 1:
        raise BenchmarkError(f"{folder}: {len(found)} calibrated models instead of one")
    return found[0]


def _seconds(document: dict[str, Any], component: str) -> float:
    return sum(float(one["seconds"]) for one in document["components"] if one["name"] == component)


def _missed(document: dict[str, Any]) -> list[str]:
    """The bounds that the gate found missed, shortened."""
    return [json.dumps(row)[:_EXCERPT] for row in document["thresholds"] if not row["passed"]]
