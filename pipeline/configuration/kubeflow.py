"""The `kubeflow:` section of the configuration: the resources of each component's pod."""

import re
from typing import Literal

from pydantic import Field, field_validator

from runtime.settings import Section

DEFAULT_POD = "default"
WORKER_POD = "Worker"
_QUANTITY = re.compile(r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$")


class Toleration(Section):
    """A Kubernetes toleration, which lets pods run on nodes with the taint."""

    key: str = ""
    """Key of the taint to tolerate; empty, with `Exists`: every taint."""
    operator: Literal["Exists", "Equal"] = "Exists"
    """`Equal` compares the taint's value too."""
    value: str = ""
    """Value of the taint, for `Equal`."""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    """Effect of the taint to tolerate; empty: every effect."""

    def manifest(self) -> dict[str, str]:
        """As Kubernetes writes it, without the empty fields."""
        return {field: value for field, value in self.model_dump().items() if value}


class PodSettings(Section):
    """The resources of one component's pod; unset fields take the value of the pod named `default`."""

    cpu: float | None = Field(default=None, gt=0)
    """CPUs requested."""
    memory_gb: float | None = Field(default=None, gt=0)
    """Memory requested, in gigabytes (10^9 bytes)."""
    cpu_limit: float | None = Field(default=None, gt=0)
    """Limit of CPUs; null: none."""
    memory_limit_gb: float | None = Field(default=None, gt=0)
    """Limit of memory, in gigabytes (10^9 bytes); null: none."""
    scratch: str | None = None
    """Limit for the pod's temporary files on the node's disk, e.g. 50Gi; null: no limit."""
    shared_memory: str | None = None
    """Size of /dev/shm, e.g. 2Gi; null: the container runtime's default of 64 MB."""
    node_selector: dict[str, str] | None = None
    """Labels that a node must have to run the pod."""
    tolerations: tuple[Toleration, ...] | None = None
    """Tolerations of the pod."""

    @field_validator("scratch", "shared_memory")
    @classmethod
    def _check_quantity(cls, value: str | None) -> str | None:
        if value is not None and not _QUANTITY.match(value):
            raise ValueError(f"'{value}' is not a Kubernetes quantity; write it like 50Gi")
        return value


class Volume(Section):
    """A PersistentVolumeClaim that is mounted in every pod."""

    claim: str
    """Name of the claim."""
    mount_path: str = Field(pattern=r"^/.+")
    """Absolute path in the pods."""


class SecretVariable(Section):
    """One key of a Kubernetes Secret, as an environment variable of every pod."""

    secret: str
    """Name of the Secret."""
    key: str
    """Key in the Secret."""
    variable: str
    """Name of the environment variable."""


class SecretFolder(Section):
    """A Kubernetes Secret that is mounted in every pod as a folder with one file per key."""

    secret: str
    """Name of the Secret."""
    mount_path: str = Field(pattern=r"^/.+")
    """Absolute path in the pods."""


class RetrySettings(Section):
    """Retries of failed pods, so that a lost node costs minutes instead of the whole run."""

    count: int = Field(default=2, ge=0)
    """Maximum number of retries."""
    backoff_s: int = Field(default=60, ge=0)
    """Seconds before the first retry; doubled before each further one."""


class TrainingJobSettings(Section):
    """Pods that train together, as a TFJob of Kubeflow's Training Operator; `pods.Worker` sets their resources."""

    workers: int = Field(ge=2)
    """Number of pods."""
    gpus_per_worker: int = Field(default=0, ge=0)
    """GPUs of each pod."""
    claim: str
    """A PersistentVolumeClaim that many pods can write to (ReadWriteMany), shared by the Trainer and the workers."""
    mount_path: str = Field(default="/training", pattern=r"^/.+")
    """Absolute path of the claim in the pods."""

    @property
    def devices(self) -> int:
        """Number of devices that share every batch."""
        return self.workers * max(1, self.gpus_per_worker)


class KubeflowSettings(Section):
    """Settings for a cluster; local runs ignore them."""

    gpus: int = Field(default=0, ge=0)
    """GPUs of the Trainer's and the Tuner's pod; all other components run on CPUs."""
    gpu_resource: str = "nvidia.com/gpu"
    """Kubernetes' name of the GPU resource."""
    tfjob: TrainingJobSettings | None = None
    """Train on several nodes; null: in the Trainer's pod."""
    pods: dict[str, PodSettings] = {DEFAULT_POD: PodSettings.model_construct(cpu=0.5, memory_gb=1.5)}
    """Pods by component, e.g. `Trainer`; `Worker` for those of the TFJob; `default` for all without an entry."""
    volumes: tuple[Volume, ...] = ()
    """Volumes of every pod."""
    secret_variables: tuple[SecretVariable, ...] = ()
    """Secrets as environment variables of every pod."""
    secret_folders: tuple[SecretFolder, ...] = ()
    """Secrets as folders in every pod."""
    variables: dict[str, str] = {}
    """Environment variables of every pod; never put a secret here, since the package shows them."""
    retries: RetrySettings = Field(default_factory=RetrySettings)
    """Retries of every pod."""
    fail_when_refused: Literal["schedules", "always", "never"] = "schedules"
    """When a run whose model the gate refused ends as failed: only scheduled runs, all runs, or none."""

    def pod(self, component: str) -> PodSettings:
        """The settings of a component's pod: its own over those of `default`."""
        default = self.pods.get(DEFAULT_POD, PodSettings())
        own = self.pods.get(component, PodSettings())
        return default.model_copy(update={name: getattr(own, name) for name in own.model_fields_set})
