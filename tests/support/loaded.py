"""What a run imports: preloaded once, by the process that all others are forked from. No TensorFlow operation runs."""

import importlib
import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

MODULES = (
    "pipeline.local.run", "pipeline.graph", "pipeline.local.runner", "pipeline.metadata.history", "trainer.module",
    "trainer.calibrator", "components.evaluation.evaluator",
    "components.report.component", "components.pusher.component", "tfx.components.transform.executor",
    "tfx.components.trainer.executor",
)  # fmt: skip
for module in MODULES:
    importlib.import_module(module)
