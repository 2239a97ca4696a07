"""The `kubeflow:` section of the configuration: what each component's pod asks of the cluster."""

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

DEFAULT_POD = "default"
WORKER_POD = "Worker"
_QUANTITY = re.compile(r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$")


class Toleration(BaseModel):
    """Kubernetes' toleration: lets a pod onto nodes that carry the taint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str = ""
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""


class PodSettings(BaseModel):
    """What one component's pod asks for; what it leaves unset, it takes from the pod named `default`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu: float | None = Field(default=None, gt=0)
    """CPUs requested."""
    memory_gb: float | None = Field(default=None, gt=0)
    """Memory requested, in gigabytes (10^9 bytes)."""
    cpu_limit: float | None = Field(default=None, gt=0)
    memory_limit_gb: float | None = Field(default=None, gt=0)
    scratch: str | None = None
    """What the pod's temporary files may take of the node's disk, e.g. 50Gi; null: no limit."""
    shared_memory: str | None = None
    """Size of /dev/shm, e.g. 2Gi; null: the container runtime's default of 64 MB."""
    node_selector: dict[str, str] | None = None
    tolerations: tuple[Toleration, ...] | None = None

    @field_validator("scratch", "shared_memory")
    @classmethod
    def _check_quantity(cls, value: str | None) -> str | None:
        if value is not None and not _QUANTITY.match(value):
            raise ValueError(f"'{value}' is no Kubernetes size; write it like 50Gi")
        return value


class Volume(BaseModel):
    """A PersistentVolumeClaim, mounted in every pod."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    claim: str
    mount_path: str = Field(pattern=r"^/.+")


class SecretVariable(BaseModel):
    """One key of a Kubernetes Secret, given to every pod as an environment variable."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    secret: str
    key: str
    variable: str


class SecretFolder(BaseModel):
    """A Kubernetes Secret, mounted as a folder with one file per key in every pod."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    secret: str
    mount_path: str = Field(pattern=r"^/.+")


class RetrySettings(BaseModel):
    """How often a failed pod is tried again: a lost node then costs minutes, not the night."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int = Field(default=2, ge=0)
    backoff_s: int = Field(default=60, ge=0)
    """Wait before the first retry; doubled before each further one."""


class TrainingJobSettings(BaseModel):
    """Pods that train together, as a TFJob of Kubeflow's Training Operator; `pods.Worker` says what each asks for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workers: int = Field(ge=2)
    gpus_per_worker: int = Field(default=0, ge=0)
    claim: str
    """A PersistentVolumeClaim that many pods write to (ReadWriteMany): there the Trainer's pod and the workers meet."""
    mount_path: str = Field(default="/training", pattern=r"^/.+")

    @property
    def devices(self) -> int:
        """Among which every batch is divided."""
        return self.workers * max(1, self.gpus_per_worker)


class KubeflowSettings(BaseModel):
    """What a configuration adds for a cluster; nothing of it matters to a local run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpus: int = Field(default=0, ge=0)
    """GPUs of each pod that trains: the Trainer's and the Tuner's; all other components run on CPUs."""
    gpu_resource: str = "nvidia.com/gpu"
    tfjob: TrainingJobSettings | None = None
    """Train on several nodes; null: in the Trainer's pod."""
    pods: dict[str, PodSettings] = {DEFAULT_POD: PodSettings(cpu=1, memory_gb=4)}
    """By component, e.g. `Trainer`, or `Worker` for those of the TFJob; `default` for those without an entry."""
    volumes: tuple[Volume, ...] = ()
    secret_variables: tuple[SecretVariable, ...] = ()
    secret_folders: tuple[SecretFolder, ...] = ()
    variables: dict[str, str] = {}
    """Environment variables of every pod; never put a secret here: they are readable in the package."""
    retries: RetrySettings = RetrySettings()

    def pod(self, component: str) -> PodSettings:
        """The component's own settings over those of `default`."""
        default = self.pods.get(DEFAULT_POD, PodSettings())
        own = self.pods.get(component, PodSettings())
        return default.model_copy(update={name: getattr(own, name) for name in own.model_fields_set})
