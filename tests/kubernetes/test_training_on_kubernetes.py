"""Training on several pods, on a real Kubernetes with Kubeflow's Training Operator."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from kubernetes_cluster import Cluster
from kubernetes_objects import IMAGE, Manifest, end_of_pod, manifests, process_of, start_pod, volume
from repository import REPOSITORY
from waiting import wait_until

from pipeline.configuration.configuration import Configuration
from pipeline.kubeflow.tfjob import training_job

pytestmark = pytest.mark.kubernetes
STEP = """
import json, sys
from tfx.components.trainer.fn_args_utils import FnArgs
from pipeline.kubeflow.pods.trainer import run_fn
run_fn(FnArgs(**json.loads(sys.argv[1])))
"""


@pytest.fixture(scope="module")
def operator(cluster: Cluster) -> Cluster:
    """The cluster with the Training Operator, installed by its own manifests."""
    overlay = cluster.programs.parent / "operator" / "manifests" / "overlays" / "standalone"
    cluster.kubectl("apply", "--server-side", "-k", overlay)
    cluster.kubectl("--namespace=kubeflow", "rollout", "status", "deployment/training-operator", "--timeout=280s")
    return cluster


@pytest.fixture(scope="module")
def training(operator: Cluster) -> Path:
    """The folder of the claim `training`, with the permissions of deploy/."""
    folder = volume(operator, "training")
    volume(operator, "images")
    operator.apply(*manifests("kubeflow-storage.yaml"), *manifests("tfjob-rbac.yaml"))
    return folder


def _conditions(cluster: Cluster, job: str) -> dict[str, str]:
    """Type -> message of the conditions that hold, as the operator reports them."""
    status = cluster.get("tfjob", job).get("status", {})
    return {c["type"]: c["message"] for c in status.get("conditions", []) if c["status"] == "True"}


def _phases(cluster: Cluster, job: str) -> dict[str, str]:
    pods = cluster.get("pods", "-l", f"training.kubeflow.org/job-name={job}")["items"]
    return {pod["metadata"]["name"]: pod["status"]["phase"] for pod in pods}


@pytest.fixture(scope="module")
def run(operator: Cluster, training: Path) -> Path:
    """The folder of a run of configs/digits.yaml by deploy/tfjob.yaml, which ended well."""
    [job] = manifests("tfjob.yaml")
    for replica in job["spec"]["tfReplicaSpecs"].values():
        [container] = replica["template"]["spec"]["containers"]
        container |= {"image": IMAGE, "imagePullPolicy": "Never", "command": ["autoencoder"]}
        container["resources"] = {"requests": {"cpu": "100m", "memory": "1G"}}
    worker = job["spec"]["tfReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]
    worker["args"] = ["worker", "/training/runs/digits"]
    digits = REPOSITORY / "configs" / "digits.yaml"
    operator.kubectl("create", "configmap", "autoencoder", f"--from-file=config.yaml={digits}")
    operator.apply(job)
    wait_until(lambda: bool(_conditions(operator, "autoencoder").keys() & {"Succeeded", "Failed"}), 1200)
    log = operator.kubectl("logs", "autoencoder-chief-0", check=False)
    assert "Succeeded" in _conditions(operator, "autoencoder"), log[-3000:]
    # It leaves only after it has trained with the chief to the end.
    assert _phases(operator, "autoencoder") == {"autoencoder-chief-0": "Succeeded", "autoencoder-worker-0": "Succeeded"}
    print(log[-800:], _conditions(operator, "autoencoder"))
    return training / "runs" / "digits"


def test_the_shipped_job_trains_on_two_pods_and_pushes_the_model(run: Path) -> None:
    [version] = (run / "serving").iterdir()
    assert (version / "saved_model.pb").exists()


def _step(cluster: Cluster, training: Path, run: Path, name: str, *, memory_limit_gb: float, **trainer: Any) -> None:
    """The Trainer's step as Kubeflow Pipelines starts it: with the service account, the claim, and no fsGroup."""
    job = {"workers": 2, "gpus_per_worker": 0, "claim": "training"}
    configuration = Configuration.model_validate(
        {
            "name": "digits-in-steps",
            "image": {"height_px": 8, "width_px": 8},
            "trainer": {"preset": "deep", "latent_dim": 8, "hidden_units": [128], "loss": "mse", **trainer},
            "kubeflow": {"tfjob": job, "pods": {"Worker": {"cpu": 0.1, "memory_limit_gb": memory_limit_gb}}},
        }
    )
    [examples] = {path.parent for path in run.rglob("Split-train") if (path.parent / "counts.json").exists()}
    [transform] = {path.parent for path in run.rglob("transform_fn")}

    def in_pod(path: Path) -> str:
        return str(Path("/training", path.relative_to(training)))

    custom_config = {
        "name": configuration.name,
        "image": configuration.image.model_dump(mode="json"),
        "trainer": configuration.trainer.model_dump(mode="json"),
        "seed": 42,
        "data_fingerprint": "a",
        "source_fingerprint": "b",
        "tfjob": {"folder": "/training/steps", "manifest": training_job(configuration, IMAGE)},
    }
    fn_args = {
        "train_files": [f"{in_pod(examples)}/Split-train/*"],
        "eval_files": [f"{in_pod(examples)}/Split-eval/*"],
        "transform_output": in_pod(transform),
        "serving_model_dir": "/training/model/Format-Serving",
        "model_run_dir": "/training/model_run",
        "custom_config": custom_config,
    }
    start_pod(
        cluster,
        name,
        IMAGE,
        ["python", "-c", STEP, json.dumps(fn_args)],
        container={
            "env": [
                {"name": f"KFP_POD_{field.upper()}", "valueFrom": {"fieldRef": {"fieldPath": f"metadata.{field}"}}}
                for field in ("name", "uid")
            ],
            "volumeMounts": [{"name": "training", "mountPath": "/training"}],
        },
        volumes=[{"name": "training", "persistentVolumeClaim": {"claimName": "training"}}],
        serviceAccountName="autoencoder",
    )


def _job_of_step(cluster: Cluster) -> Manifest | None:
    jobs = [job for job in cluster.get("tfjobs")["items"] if job["metadata"]["name"] != "autoencoder"]
    return jobs[0] if jobs else None


def test_workers_that_need_more_memory_than_their_limit_are_named_with_the_remedy(
    operator: Cluster, training: Path, run: Path
) -> None:
    _step(operator, training, run, "hungry-step", memory_limit_gb=0.3, epochs=2)
    status = end_of_pod(operator, "hungry-step", 400)
    assert status["phase"] == "Failed"
    assert (
        "needed more memory than its limit and was killed; raise kubeflow.pods.Worker.memory_limit_gb" in status["log"]
    )
    wait_until(lambda: _job_of_step(operator) is None, 60)


def test_a_step_whose_worker_is_killed_fails_and_the_next_one_continues_to_a_saved_model(
    operator: Cluster, training: Path, run: Path
) -> None:
    def attempt(name: str) -> None:
        _step(operator, training, run, name, memory_limit_gb=4, epochs=60, batch_size=32)

    attempt("first-step")
    wait_until(lambda: any(training.glob("steps/checkpoints/*/*.npz")), 400)
    job = _job_of_step(operator)
    assert job is not None
    worker = operator.get("pod", f"{job['metadata']['name']}-worker-1")
    subprocess.run(["kill", "-KILL", process_of(operator, worker)], check=True)
    lost = end_of_pod(operator, "first-step", 300)
    assert lost["phase"] == "Failed"
    assert "the next attempt continues from the last checkpoint" in lost["log"]

    attempt("second-step")
    status = end_of_pod(operator, "second-step", 600)
    assert status["phase"] == "Succeeded", status["log"][-3000:]
    assert "training resumes after step" in status["log"]
    assert f"{job['metadata']['name']}-worker-1: Succeeded" in status["log"]
    assert (training / "model" / "Format-Serving" / "saved_model.pb").exists()
    wait_until(lambda: _job_of_step(operator) is None, 60)
