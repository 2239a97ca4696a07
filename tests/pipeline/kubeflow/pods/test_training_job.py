"""Training on several nodes by a TFJob: its manifest, its creation and deletion, and the trained model."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kubernetes
import numpy as np
import pytest
import yaml
from repository import REPOSITORY
from tfjob_server import NAMESPACE, Cluster, cluster

from pipeline.configuration.configuration import Configuration, ConfigurationError
from pipeline.kubeflow.compile.package import check_for_cluster, check_pods, compile_package
from pipeline.kubeflow.pods import training_job as kubeflow_training_job
from pipeline.kubeflow.pods.trainer import complete_manifest, job_name, run_fn
from pipeline.kubeflow.pods.training_job import TrainingJobError, run_training_job
from pipeline.kubeflow.tfjob import training_job

IMAGE = "registry.example/autoencoder-gpu@sha256:" + "a0" * 32
TFJOB = {"workers": 2, "gpus_per_worker": 4, "claim": "training"}
VALUES: dict[str, Any] = {
    "name": "digits",
    "trainer": {"preset": "dense", "batch_size": 64},
    "kubeflow": {
        "tfjob": TFJOB,
        "pods": {
            "default": {"cpu": 0.5, "memory_gb": 4},
            "Worker": {
                "cpu": 8,
                "memory_gb": 64,
                "shared_memory": "8Gi",
                "scratch": "50Gi",
                "node_selector": {"accelerator": "h200"},
                "tolerations": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}],
            },
        },
        "variables": {"NCCL_SOCKET_IFNAME": "eth0"},
    },
}
OWNER = {"KFP_POD_NAME": "trainer-1", "KFP_POD_UID": "uid-1"}


def _round_trip(document: Any, model: str) -> Any:
    """The document as the official client reads and writes it, which drops fields that Kubernetes does not know."""
    client = kubernetes.client.ApiClient()
    return client.sanitize_for_serialization(client.deserialize(SimpleNamespace(data=json.dumps(document)), model))


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    return training_job(Configuration.model_validate(VALUES), IMAGE)


def test_the_jobs_pods_have_only_fields_that_kubernetes_knows(manifest: dict[str, Any]) -> None:
    template = manifest["spec"]["tfReplicaSpecs"]["Worker"]["template"]
    assert _round_trip(template, "V1PodTemplateSpec") == template


def test_the_workers_have_the_configured_resources(manifest: dict[str, Any]) -> None:
    worker = manifest["spec"]["tfReplicaSpecs"]["Worker"]
    [container] = worker["template"]["spec"]["containers"]
    assert (worker["replicas"], worker["restartPolicy"]) == (2, "Never")
    assert container["resources"] == {
        "requests": {"cpu": "8", "memory": "64G"},
        "limits": {"nvidia.com/gpu": "4"},
    }
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/training", "/dev/shm", "/scratch"}
    assert {"name": "NCCL_SOCKET_IFNAME", "value": "eth0"} in container["env"]
    assert worker["template"]["spec"]["nodeSelector"] == {"accelerator": "h200"}


def test_a_jobs_name_leaves_room_for_its_services(manifest: dict[str, Any]) -> None:
    name = job_name("9" * 60, "0123456789abcdef" * 2)
    assert len(f"{name}-worker-99") <= 63
    assert name[0].isalpha()
    assert name == job_name("9" * 60, "0123456789abcdef" * 2) != job_name("9" * 60, "f" * 32)
    job = complete_manifest(manifest, name, Path("/training/digits/job.json"))
    assert job["spec"]["tfReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]["args"] == [
        "/training/digits/job.json"
    ]
    assert "name" not in manifest["metadata"]


def test_the_trainers_pod_starts_the_job_and_needs_no_gpu() -> None:
    [spec, platform] = compile_package(
        Configuration.model_validate(VALUES), image=IMAGE, trainer_image=None, root="s3://bucket/prefix", gpus=0
    )
    parameters = spec["root"]["dag"]["tasks"]["Trainer"]["inputs"]["parameters"]
    assert parameters["run_fn"]["runtimeValue"]["constant"] == f"{run_fn.__module__}.{run_fn.__qualname__}"
    job = json.loads(parameters["custom_config"]["runtimeValue"]["constant"])["tfjob"]
    assert job == {
        "folder": "/training/digits",
        "manifest": training_job(Configuration.model_validate(VALUES), IMAGE),
    }
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert executors["Trainer_executor"]["pvcMount"] == [{"constant": "training", "mountPath": "/training"}]
    assert "Pusher_executor" not in executors
    assert "accelerator" not in json.dumps(spec["deploymentSpec"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"batch_size": 60}, "trainer.batch_size: 60 is not a multiple of the 8 devices"),
        ({"distribution": "mirrored"}, "'mirrored' uses one machine"),
        ({"checkpoint_folder": "/data/checkpoints"}, "trainer.checkpoint_folder"),
    ],
)
def test_settings_that_contradict_the_job_are_refused(change: dict[str, Any], reason: str) -> None:
    configuration = Configuration.model_validate({**VALUES, "trainer": {**VALUES["trainer"], **change}})
    with pytest.raises(ConfigurationError, match=reason):
        check_for_cluster(configuration)


def test_several_machines_without_a_job_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="needs kubeflow.tfjob"):
        check_for_cluster(Configuration.model_validate({"trainer": {"distribution": "multi_worker"}}))
    with pytest.raises(ConfigurationError, match="no component is called 'Worker'"):
        check_pods(Configuration.model_validate({"kubeflow": {"pods": {"Worker": {"cpu": 1}}}}), ["Trainer"])
    with pytest.raises(ConfigurationError, match="use kubeflow.tfjob.gpus_per_worker"):
        compile_package(
            Configuration.model_validate(VALUES), image=IMAGE, trainer_image=None, root="s3://bucket/prefix", gpus=1
        )


def test_the_role_grants_exactly_what_the_trainer_needs() -> None:
    path = REPOSITORY / "deploy" / "tfjob-rbac.yaml"
    documents = {document["kind"]: document for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))}
    for kind in ("ServiceAccount", "Role"):
        assert _round_trip(documents[kind], f"V1{kind}") == documents[kind]
    allowed = {
        (resource, verb)
        for rule in documents["Role"]["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert allowed == {
        *(("tfjobs", verb) for verb in ("create", "get", "delete")),
        *(("pods", verb) for verb in ("get", "list")),
        ("pods/log", "get"),
    }


def test_the_standalone_job_has_a_chief_that_runs_the_pipeline_and_workers() -> None:
    job = yaml.safe_load((REPOSITORY / "deploy" / "tfjob.yaml").read_text(encoding="utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "TFJob")
    replicas = job["spec"]["tfReplicaSpecs"]
    commands = {}
    for kind, spec in replicas.items():
        assert _round_trip(spec["template"], "V1PodTemplateSpec") == spec["template"]
        [container] = spec["template"]["spec"]["containers"]
        assert container["name"] == "tensorflow"
        commands[kind] = container["args"]
    assert commands["Chief"][0] == "run"
    assert commands["Worker"][0] == "worker"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    with cluster(tmp_path) as state:
        monkeypatch.setenv("KUBECONFIG", str(state.kubeconfig))
        monkeypatch.setattr(kubeflow_training_job, "_POLL_S", 0.1)
        yield state


def _job(code: str, name: str = "train-x") -> dict[str, Any]:
    manifest = training_job(Configuration.model_validate(VALUES), IMAGE)
    manifest["metadata"]["name"] = name
    [container] = manifest["spec"]["tfReplicaSpecs"]["Worker"]["template"]["spec"]["containers"]
    container["command"] = ["python", "-c", code]
    return manifest


def _run(manifest: dict[str, Any]) -> None:
    run_training_job(manifest, {**OWNER, "KUBECONFIG": os.environ["KUBECONFIG"]})


def test_the_workers_logs_are_printed_and_the_job_is_deleted(
    server: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(_job("import os, json; print('I am', json.loads(os.environ['TF_CONFIG'])['task']['index'])"))
    output = capsys.readouterr().out
    assert "train-x-worker-0: I am 0\n" in output
    assert "train-x-worker-1: I am 1\n" in output
    assert server.jobs == {}
    [owner] = server.created[0]["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("Pod", "trainer-1", "uid-1")


def test_a_failing_worker_fails_the_step_and_the_job_is_deleted(
    server: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "import os, sys, time; print('alas'); '1}' in os.environ['TF_CONFIG'] and sys.exit(3); time.sleep(1)"
    with pytest.raises(TrainingJobError, match="train-x failed: 1 Worker replica"):
        _run(_job(code))
    assert "train-x-worker-1: alas\n" in capsys.readouterr().out
    assert server.jobs == {}


def test_a_worker_that_was_killed_for_its_memory_is_named_with_the_remedy(server: Cluster) -> None:
    code = "import os, time; '1}' in os.environ['TF_CONFIG'] and os.kill(os.getpid(), 9); time.sleep(1)"
    with pytest.raises(TrainingJobError, match="train-x-worker-1 needed more memory than its limit and was killed"):
        _run(_job(code))


def test_a_job_of_a_dead_pod_is_replaced_and_that_of_a_running_pod_is_not(server: Cluster) -> None:
    left = _job("import time; time.sleep(60)")
    left["metadata"]["ownerReferences"] = [{"kind": "Pod", "name": "other", "uid": "uid-2"}]
    server.create(left)
    server.pods["other"] = {"metadata": {"name": "other", "uid": "uid-2"}, "status": {"phase": "Running"}}
    with pytest.raises(TrainingJobError, match="pod other is training the same model"):
        _run(_job("pass"))
    assert server.jobs["train-x"] is left
    server.pods["other"]["status"]["phase"] = "Failed"
    _run(_job("pass"))
    assert server.jobs == {}


def test_a_missing_training_operator_is_reported(server: Cluster) -> None:
    kubeconfig = server.kubeconfig.read_text(encoding="utf-8")
    server.kubeconfig.write_text(kubeconfig.replace(f"namespace: {NAMESPACE}", "namespace: other"), encoding="utf-8")
    with pytest.raises(TrainingJobError, match="answered 404 Not Found: install Kubeflow's Training Operator"):
        _run(_job("pass"))


STEP = """
import json, sys
from tfx.components.trainer.fn_args_utils import FnArgs
from pipeline.kubeflow.pods.trainer import run_fn
run_fn(FnArgs(**json.loads(sys.argv[1])))
"""


def _transform(folder: Path) -> dict[str, Any]:
    """The Trainer's inputs: examples of 40 + 12 images and the graph that Transform creates from them."""
    import tensorflow as tf
    import tensorflow_transform.beam as tft_beam
    from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils

    from images.stored import from_pixels
    from trainer.preprocessing import preprocessing_fn
    from trainer.settings.image import ImageSettings

    image = ImageSettings(height_px=4, width_px=4)
    pixels = np.random.default_rng(0).integers(0, 256, (52, 4, 4, 1), np.uint8)
    rows = [{"image": from_pixels(one).encoded} for one in pixels]
    for split, part in (("train", rows[:40]), ("eval", rows[40:])):
        (folder / f"Split-{split}").mkdir()
        with tf.io.TFRecordWriter(str(folder / f"Split-{split}" / "data-0")) as writer:
            for row in part:
                value = tf.train.Feature(bytes_list=tf.train.BytesList(value=[row["image"]]))
                writer.write(tf.train.Example(features=tf.train.Features(feature={"image": value})).SerializeToString())
    (folder / "counts.json").write_text(json.dumps({"train": 40, "eval": 12}))
    schema = schema_utils.schema_from_feature_spec({"image": tf.io.FixedLenFeature([], tf.string)})
    with tft_beam.Context(temp_dir=str(folder / "tmp")):
        _, transform_fn = (rows, dataset_metadata.DatasetMetadata(schema)) | tft_beam.AnalyzeAndTransformDataset(
            lambda inputs: preprocessing_fn(inputs, {"image": image.model_dump()})
        )
        transform_fn | tft_beam.WriteTransformFn(str(folder / "transform"))
    return {
        "train_files": [str(folder / "Split-train" / "*")],
        "eval_files": [str(folder / "Split-eval" / "*")],
        "transform_output": str(folder / "transform"),
    }


def _weights(model: Path) -> dict[str, Any]:
    import tensorflow as tf

    variables = str(model / "variables" / "variables")
    stored = {name: tf.train.load_variable(variables, name) for name, _ in tf.train.list_variables(variables)}
    return {name: value for name, value in stored.items() if getattr(value, "dtype", None) == np.float32}


@pytest.mark.slow
def test_a_job_trains_the_same_model_as_one_process(server: Cluster, tmp_path: Path) -> None:
    from tfx.components.trainer.fn_args_utils import FnArgs

    from trainer import module

    trainer = {"preset": "dense", "latent_dim": 3, "loss": "mse", "batch_size": 8, "epochs": 2, "learning_rate": 0.01}
    job = {**TFJOB, "gpus_per_worker": 0, "mount_path": str(tmp_path / "claim")}
    configuration = Configuration.model_validate(
        {"name": "small", "image": {"height_px": 4, "width_px": 4}, "trainer": trainer, "kubeflow": {"tfjob": job}}
    )
    given = _transform(tmp_path)
    custom_config = {
        "name": "small",
        "image": configuration.image.model_dump(mode="json"),
        "trainer": configuration.trainer.model_dump(mode="json"),
        "seed": 42,
        "data_fingerprint": "a",
        "source_fingerprint": "b",
    }

    def fn_args(outputs: str, **more: Any) -> dict[str, Any]:
        folders = {
            "serving_model_dir": str(tmp_path / outputs / "model" / "Format-Serving"),
            "model_run_dir": str(tmp_path / outputs / "model_run" / "1"),
        }
        return {**given, **folders, "custom_config": {**custom_config, **more}}

    module.run_fn(FnArgs(**fn_args("alone")))
    tfjob = {"folder": str(tmp_path / "claim" / "small"), "manifest": training_job(configuration, IMAGE)}
    step = subprocess.run(
        [sys.executable, "-c", STEP, json.dumps(fn_args("together", tfjob=tfjob))],
        env={**os.environ, **OWNER, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert step.returncode == 0, step.stdout + step.stderr
    assert "-worker-0: INFO:trainer.fitting.callbacks:epoch 2: loss " in step.stdout
    assert server.jobs == {}
    alone, together = (_weights(tmp_path / name / "model" / "Format-Serving") for name in ("alone", "together"))
    assert alone.keys() == together.keys()
    differences = [float(np.abs(alone[name] - together[name]).max()) for name in alone]
    assert len(differences) >= 4
    assert max(differences) < 1e-4
    assert list((tmp_path / "together" / "model_run" / "1").rglob("events.*"))
    assert [path for path in (tmp_path / "claim").rglob("*") if path.is_file()] == []


def test_terminating_the_step_deletes_the_job(server: Cluster, tmp_path: Path) -> None:
    code = """
import json, os, sys
from pipeline.kubeflow.pods.training_job import run_training_job
run_training_job(json.loads(sys.argv[1]), os.environ)
"""
    manifest = json.dumps(_job("import time; time.sleep(60)"))
    step = subprocess.Popen(
        [sys.executable, "-c", code, manifest],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert step.stdout is not None
    for line in step.stdout:
        if "worker-1: Running" in line:
            break
    step.send_signal(signal.SIGTERM)
    step.communicate()
    assert step.returncode == 128 + signal.SIGTERM
    assert server.jobs == {}
