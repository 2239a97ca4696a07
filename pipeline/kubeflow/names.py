"""Names that the compiler, the pods and the simulator share."""

from typing import Any, Final

Message = dict[str, Any]
"""A protobuf message in its JSON form."""

KUBEFLOW_TYPE: Final[Message] = {"schemaTitle": "system.Artifact", "schemaVersion": "0.0.1"}
"""Type of all artifacts except the page."""
VERDICT_TASK: Final = "verdict"
SUMMARY_KEY: Final = "summary"
"""Output of the verdict task: a JSON file with verdict, explanation, metrics, bounds and destination."""
PAGE_KEY: Final = "page"
"""Output of the verdict task: the report as an HTML file."""
BLESSED: Final = "blessed"
REFUSED: Final = "refused"
FAIL_TASK: Final = "fail-when-refused"
WHEN_PARAMETER: Final = "fail_when_refused"
"""A run's parameter, one of the values below."""
ALWAYS: Final = "always"
SCHEDULES: Final = "schedules"
NEVER: Final = "never"
FAIL_WHEN_REFUSED: Final = (SCHEDULES, ALWAYS, NEVER)
INPUTS_SPEC_FLAG: Final = "--json_serialized_inputs_spec_args"
OUTPUTS_SPEC_FLAG: Final = "--json_serialized_outputs_spec_args"
"""The entrypoint's own flag: the TFX type of each output that the component declares."""
OVERRIDE_PREFIX: Final = "override--"
"""The entrypoint writes the parameter `override--settings--path` to `path` in the JSON of `settings`."""
SCRATCH_FOLDER: Final = "/scratch"
"""Where a pod's temporary volume is mounted."""
SHARED_MEMORY_FOLDER: Final = "/dev/shm"
USER_ID: Final = 65532
"""Number of the image's user and of its group."""
STAGING_FOLDERS: Final = {"s3://": "s3", "minio://": "minio", "gs://": "gcs"}
"""The object stores that Kubeflow's launcher can reach, and the folder below `/` where it stages each one's files."""
STAGING_ROOT_VARIABLE: Final = "KUBEFLOW_STAGING_ROOT"
"""Environment variable: the folder that replaces `/` above the staging folders in a rehearsal; unset in a pod."""
TRAINING_JOB: Final = "tfjob"
"""Key of the Trainer's custom_config under which the compiled package holds its training job."""
