"""Names that the compiled package and what runs in its pods agree on."""

from typing import Final

ENTRYPOINT: Final = "pipeline.kubeflow.pods.entrypoint"
DATA_VERSION_MODULE: Final = "pipeline.kubeflow.pods.data_version"
INPUTS_SPEC_FLAG: Final = "--json_serialized_inputs_spec_args"
OVERRIDE_PREFIX: Final = "override--"
"""`override--settings--path`: the entrypoint writes this parameter to `path` in the JSON of `settings`."""
STAGING_ROOT_VARIABLE: Final = "KUBEFLOW_STAGING_ROOT"
"""Environment variable: what stands for `/` above /s3, /minio and /gcs in a rehearsal; unset in a pod."""
TRAIN_IN_A_JOB: Final = "pipeline.kubeflow.pods.trainer.run_fn"
"""What takes the place of the Trainer's function where several nodes train."""
TRAINING_JOB: Final = "tfjob"
"""Key of the Trainer's custom_config under which the compiled package holds its training job."""
SCRATCH_FOLDER: Final = "/scratch"
"""Where a pod's temporary volume is mounted."""
