"""Names of files in the pipeline's artifacts, shared by their writers and readers."""

from typing import Final

# In the Trainer's `model_run`: SavedModels that are evaluated for comparison with the candidate.
CONTROLS_FOLDER: Final = "controls"
UNTRAINED: Final = "untrained"
CONSTANT: Final = "constant"
PCA_FLOOR: Final = "pca"
NEIGHBOURS_FLOOR: Final = "nearest_neighbours"
PICTURE_FILE: Final = "reconstructions.png"

# Next to the Trainer's artifacts while several machines train.
JOB_FILE: Final = "job.json"

# In the Calibrator's `calibration`.
CALIBRATION_FILE: Final = "calibration.json"
# the training images that the model explains worst, and the anomaly maps [k, H, W] of the first k of them.
SUSPECTS_FILE: Final = "suspects.jsonl"
SUSPECT_MAPS_FILE: Final = "suspect_maps.npy"
SUSPECTS_SHOWN: Final = 12

# In ModelAnalysis's `analysis`, next to TFMA's files: the metrics of the controls,
CONTROLS_FILE: Final = "controls.json"
# and TFRecords of test images with their errors, which the Pusher replays against the pushed copy.
PARITY_FILE: Final = "parity.tfrecord"

# In ExampleValidator's `anomalies`: how the images differ from those of the newest pushed model.
DRIFT_FILE: Final = "drift.json"

# In the Evaluator's `evaluation`: the result for each bound, and TFMA's format of the verdict.
GATE_FILE: Final = "gate.json"
VALIDATIONS_FILE: Final = "validations-00000-of-00001.tfrecord"

# In ImageExampleGen's `examples`.
COUNTS_FILE: Final = "counts.json"
# in it, beside counts of images: bits of the largest value in files of 16 bits.
USED_BITS: Final = "used_bits"
REJECTS_FILE: Final = "rejects.jsonl"

# Properties of the Pusher's `pushed_model`: the version's folder, and why a blessed model was not pushed.
PUSHED_DESTINATION: Final = "pushed_destination"
NOT_PUSHED_BECAUSE: Final = "not_pushed_because"

SAVED_MODEL_FILE: Final = "saved_model.pb"
# Next to it: TFRecords of PredictionLog, where TensorFlow Serving looks for them, and files that it ignores.
WARMUP_FILE: Final = "assets.extra/tf_serving_warmup_requests"
RECORD_FILE: Final = "assets.extra/autoencoder.json"
PUSHED_STATISTICS_FOLDER: Final = "assets.extra/statistics"
"""Only in a pushed model: StatisticsGen's output for its training images."""

# In the Report's `report`: the page, the results for synthetic defects in machine-readable form, and a few pictures.
REPORT_TYPE: Final = "schema.HtmlReport"
REPORT_FILE: Final = "report.html"
DEFECTS_FILE: Final = "synthetic_defects.json"
THUMBNAILS_FILE: Final = "thumbnails.json"

# Custom properties of every artifact, set by the runner of its component: time, and peak memory of the process.
SECONDS_PROPERTY: Final = "seconds"
PEAK_MEMORY_PROPERTY: Final = "peak_memory_mb"
