"""The names of files inside the pipeline's artifacts, for those that write them and those that read them."""

from typing import Final

# In Trainer's `model_run`: SavedModels that are judged beside the candidate.
CONTROLS_FOLDER: Final = "controls"
UNTRAINED: Final = "untrained"
CONSTANT: Final = "constant"
PCA_FLOOR: Final = "pca"
PICTURE_FILE: Final = "reconstructions.png"

# Beside Trainer's artifacts, while several machines train.
JOB_FILE: Final = "job.json"

# In the Calibrator's `calibration`.
CALIBRATION_FILE: Final = "calibration.json"

# In ModelAnalysis's `analysis`, beside TFMA's files: the metrics of the controls,
CONTROLS_FILE: Final = "controls.json"
# and TFRecords of test images with their errors, which the Pusher replays against what it pushes.
PARITY_FILE: Final = "parity.tfrecord"

# In the Evaluator's `evaluation`: the verdict, bound by bound, and as TFMA records it.
GATE_FILE: Final = "gate.json"
VALIDATIONS_FILE: Final = "validations-00000-of-00001.tfrecord"

# In ImageExampleGen's `examples`.
COUNTS_FILE: Final = "counts.json"
REJECTS_FILE: Final = "rejects.jsonl"

# A property of the Pusher's `pushed_model`: why a blessed model was not pushed.
NOT_PUSHED_BECAUSE: Final = "not_pushed_because"

SAVED_MODEL_FILE: Final = "saved_model.pb"
# Beside it: TFRecords of PredictionLog, where TensorFlow Serving looks for them, and what it ignores.
WARMUP_FILE: Final = "assets.extra/tf_serving_warmup_requests"
RECORD_FILE: Final = "assets.extra/autoencoder.json"
PUSHED_STATISTICS_FOLDER: Final = "assets.extra/statistics"
"""In a pushed model: StatisticsGen's output for the images that it was trained on."""

# In the Report's `report`: the page, and what was found out about synthetic defects, for programs.
REPORT_TYPE: Final = "schema.HtmlReport"
REPORT_FILE: Final = "report.html"
DEFECTS_FILE: Final = "synthetic_defects.json"

# Custom properties of every artifact, set by whatever ran its component: what it took.
SECONDS_PROPERTY: Final = "seconds"
PEAK_MEMORY_PROPERTY: Final = "peak_memory_mb"
"""Of the process that ran it."""
