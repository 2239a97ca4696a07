"""The manifests of deploy/ and our images on a real Kubernetes: programs of one node, built from source.

Pods cannot pull images here, so TensorFlow Serving's own image and the Training Operator are not tested.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_cluster import Cluster, missing_tools, running_cluster
from repository import REPOSITORY
from served_models import image_model, normal_png  # noqa: F401 - fixtures
from waiting import wait_until

from pipeline.kubeflow.names import USER_ID

pytestmark = pytest.mark.kubernetes
DEPLOY = REPOSITORY / "deploy"
TOKEN = "a-token-for-this-test"  # noqa: S105


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    if missing := missing_tools():
        pytest.skip(f"a cluster needs {', '.join(missing)}")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "autoencoder-kubernetes"
    built = subprocess.run(
        ["bash", REPOSITORY / "tests" / "kubernetes" / "prepare.sh", cache, sys.executable],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    print(built.stdout)
    folder = Path("/var/tmp/autoencoder-kubernetes")  # noqa: S108 - a socket's path must be short
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with running_cluster(cache, folder) as running:
        yield running
    shutil.rmtree(folder, ignore_errors=True)


def _manifests(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8")))


def _volume(cluster: Cluster, name: str, modes: list[str]) -> Path:
    """A volume on the node, whose group Kubernetes sets to a pod's fsGroup; its folder belongs to root."""
    folder = cluster.folder / "volumes" / name
    folder.mkdir(parents=True)
    terms = [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["node"]}]}]
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": "50Gi"},
                "accessModes": modes,
                "local": {"path": str(folder)},
                "claimRef": {"namespace": "default", "name": name},
                "nodeAffinity": {"required": {"nodeSelectorTerms": terms}},
            },
        }
    )
    return folder


def _ready_pods(cluster: Cluster, selector: str) -> list[dict[str, Any]]:
    pods = cluster.get("pods", "-l", selector)["items"]
    return [
        pod
        for pod in pods
        if any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
        and "deletionTimestamp" not in pod["metadata"]
    ]


def _finished(cluster: Cluster, name: str, image: str, command: list[str], **more: Any) -> dict[str, Any]:
    """Run a pod to its end; its status, with its log as `log`."""
    container = {"name": "main", "image": image, "command": command, "imagePullPolicy": "Never", **more.pop("of", {})}
    spec = {"restartPolicy": "Never", "containers": [container], **more}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})

    def status() -> dict[str, Any]:
        return dict(cluster.get("pod", name)["status"])

    wait_until(lambda: status()["phase"] in ("Succeeded", "Failed"), 240)
    return {**status(), "log": cluster.kubectl("logs", name, check=False)}


def test_every_manifest_is_accepted(cluster: Cluster) -> None:
    """Applied for real; kinds of operators that are not installed here are left out by name."""
    accepted, foreign = [], []
    for path in sorted([*DEPLOY.glob("*.yaml"), *DEPLOY.glob("kubernetes/*.yaml"), *DEPLOY.glob("kserve/*.yaml")]):
        for manifest in _manifests(str(path.relative_to(DEPLOY))):
            if "kind" not in manifest:
                continue  # compose.yaml
            if manifest["apiVersion"].partition("/")[0] in ("kubeflow.org", "serving.kserve.io"):
                foreign.append(manifest["kind"])
                continue
            answer = cluster.kubectl("create", "--validate=strict", "-f", "-", stdin=json.dumps(manifest))
            assert "created" in answer
            accepted.append(manifest["kind"])
    assert sorted(foreign) == ["InferenceService", "TFJob"]
    assert len(accepted) >= 12
    cluster.kubectl("delete", "deployments,services,hpa,pdb,configmaps", "-l", "app.kubernetes.io/name=autoencoder")
    cluster.kubectl("delete", "hpa,pdb,pvc", "--all")


def test_the_images_user_has_a_group_of_its_own(cluster: Cluster) -> None:
    """Also without a securityContext, as in Kubeflow's pods."""
    status = _finished(cluster, "identity", "localhost/autoencoder:serving", ["id"])
    assert (
        status["log"].strip() == f"uid={USER_ID}(autoencoder) gid={USER_ID}(autoencoder) groups={USER_ID}(autoencoder)"
    )


def test_a_volume_that_belongs_to_root_is_writable_with_fsgroup(cluster: Cluster) -> None:
    """The claim of a training job, with the security settings of its pods."""
    _volume(cluster, "training", ["ReadWriteMany"])
    [claim] = [m for m in _manifests("kubeflow-storage.yaml") if m["metadata"]["name"] == "training"]
    cluster.apply(claim)
    security = _manifests("tfjob.yaml")[0]["spec"]["tfReplicaSpecs"]["Worker"]["template"]["spec"]["securityContext"]
    volume = {"name": "training", "persistentVolumeClaim": {"claimName": "training"}}
    mounted = {"volumeMounts": [{"name": "training", "mountPath": "/training"}]}
    write = ["sh", "-c", "echo 1 > /training/a && cat /training/a"]
    image = "localhost/autoencoder:serving"
    with_group = _finished(cluster, "with-group", image, write, of=mounted, volumes=[volume], securityContext=security)
    assert (with_group["phase"], with_group["log"].strip()) == ("Succeeded", "1")


def test_a_pod_that_needs_more_memory_than_its_limit_is_killed_for_it(cluster: Cluster) -> None:
    """What Kubernetes reports, which docs/kubeflow.md explains."""
    limits = {"resources": {"limits": {"memory": "400Mi"}}}
    command = ["autoencoder", "run", "/tmp/digits.yaml", "--set", "root=/tmp/runs", "--set", "trainer.epochs=1"]
    script = f"echo 'name: digits' > /tmp/digits.yaml; exec {' '.join(command)}"
    status = _finished(cluster, "hungry", "localhost/autoencoder:serving", ["sh", "-c", script], of=limits)
    [container] = status["containerStatuses"]
    assert container["state"]["terminated"]["reason"] == "OOMKilled"
    assert container["state"]["terminated"]["exitCode"] == 137


class Served:
    """Our server on the cluster, by the manifest, and requests to its Service."""

    LABELS = "app.kubernetes.io/component=server"

    def __init__(self, cluster: Cluster, certificate: Path) -> None:
        self.cluster, self._certificate = cluster, certificate

    def status_of(self, path: str, *options: str) -> tuple[int, str]:
        """(HTTP status, body) of a request to the Service's address."""
        address = self.cluster.get("service", "autoencoder-server")["spec"]["clusterIP"]
        where = ["--resolve", f"autoencoder-server:8501:{address}", f"https://autoencoder-server:8501{path}"]
        how = ["--silent", "--max-time", "10", "--cacert", self._certificate, "--write-out", "\n%{http_code}"]
        body, _, status = self.cluster.run("curl", *how, *options, *where, check=False).rpartition("\n")
        return int(status), body

    def predict(self, image: bytes) -> tuple[int, str]:
        import base64

        body = json.dumps({"instances": [{"b64": base64.b64encode(image).decode()}]})
        login = f"Authorization: Bearer {TOKEN}"
        return self.status_of("/v1/models/autoencoder:predict", "--header", login, "--data", body)

    def ready(self) -> int:
        return len(_ready_pods(self.cluster, self.LABELS))


@pytest.fixture(scope="module")
def served(cluster: Cluster, image_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Served:  # noqa: F811
    """deploy/kubernetes/server.yaml with our image, a certificate, a token and a volume with one version."""
    files = tmp_path_factory.mktemp("tls")
    certificate, key = files / "tls.crt", files / "tls.key"
    subject = ["-subj", "/CN=autoencoder-server", "-addext", "subjectAltName=DNS:autoencoder-server"]
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    subprocess.run([*new, *subject, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    cluster.kubectl("create", "secret", "tls", "autoencoder-tls", f"--cert={certificate}", f"--key={key}")
    cluster.kubectl("create", "secret", "generic", "autoencoder-tokens", f"--from-literal=tokens={TOKEN}")
    folder = _volume(cluster, "autoencoder-serving", ["ReadWriteMany"])
    shutil.copytree(image_model, folder, dirs_exist_ok=True)
    # As a push leaves it. Kubernetes does not change the group of a volume that it mounts read-only.
    subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "autoencoder-serving"},
            "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
        }
    )
    manifests = _manifests("kubernetes/server.yaml")
    [deployment] = [m for m in manifests if m["kind"] == "Deployment"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    container |= {"image": "localhost/autoencoder:serving", "imagePullPolicy": "Never"}
    container["resources"]["requests"]["cpu"] = "100m"  # two replicas and a surge on two cores
    cluster.apply(*manifests)
    started = Served(cluster, certificate)
    # Two, from the autoscaler's minimum: it needs no metric for that.
    wait_until(lambda: started.ready() == 2, 180)
    return started


def test_our_server_scores_an_image_through_its_service(served: Served, normal_png: bytes) -> None:  # noqa: F811
    status, body = served.predict(normal_png)
    assert status == 200, body
    assert json.loads(body)["predictions"][0]["is_anomaly"] == 0
    assert served.status_of("/v1/models/autoencoder")[0] == 401
    assert served.status_of("/readyz")[0] == 200


def test_its_file_system_is_read_only_and_its_user_is_not_root(served: Served) -> None:
    pod = _ready_pods(served.cluster, served.LABELS)[0]["metadata"]["name"]
    inside = ("exec", pod, "--", "sh", "-c")
    assert served.cluster.kubectl(*inside, "id -u; id -g").split() == [str(USER_ID), str(USER_ID)]
    assert "Read-only file system" in served.cluster.kubectl(*inside, "touch /opt/a 2>&1 || true")
    assert served.cluster.kubectl(*inside, "touch /tmp/a && echo done").strip() == "done"


def test_a_server_that_ends_is_restarted_and_becomes_ready(served: Served) -> None:
    pod = _ready_pods(served.cluster, served.LABELS)[0]["metadata"]["name"]
    served.cluster.kubectl("exec", pod, "--", "python", "-c", "import os, signal; os.kill(1, signal.SIGTERM)")

    def restarts() -> int:
        [status] = served.cluster.get("pod", pod)["status"]["containerStatuses"]
        return int(status["restartCount"])

    wait_until(lambda: restarts() == 1, 60)
    wait_until(lambda: served.ready() == 2, 120)


def test_a_server_that_hangs_is_restarted(served: Served) -> None:
    """A stopped process still accepts connections, so only an answer shows that it is alive."""
    pod = _ready_pods(served.cluster, served.LABELS)[0]
    [status] = pod["status"]["containerStatuses"]
    container = status["containerID"].removeprefix("containerd://")
    before = status["restartCount"]
    tasks = served.cluster.ctr("tasks", "list").splitlines()
    [process] = [line.split()[1] for line in tasks if line.startswith(container)]
    subprocess.run(["kill", "-STOP", process], check=True)
    name = pod["metadata"]["name"]
    wait_until(lambda: served.ready() == 1, 60)  # no longer receives requests
    wait_until(
        lambda: served.cluster.get("pod", name)["status"]["containerStatuses"][0]["restartCount"] == before + 1, 240
    )
    wait_until(lambda: served.ready() == 2, 120)


def test_a_rollout_fails_no_request(served: Served, normal_png: bytes) -> None:  # noqa: F811
    """Requests are sent one after another, each on a new connection, while all pods are replaced."""
    answers: list[int] = []
    ended = threading.Event()

    def send() -> None:
        while not ended.is_set():
            answers.append(served.predict(normal_png)[0])

    thread = threading.Thread(target=send)
    thread.start()
    old = {pod["metadata"]["name"] for pod in _ready_pods(served.cluster, served.LABELS)}
    served.cluster.kubectl("rollout", "restart", "deployment/autoencoder-server")
    served.cluster.kubectl("rollout", "status", "deployment/autoencoder-server", "--timeout=240s")
    wait_until(lambda: not old & {p["metadata"]["name"] for p in served.cluster.get("pods")["items"]}, 90)
    time.sleep(2)
    ended.set()
    thread.join()
    print(f"{len(answers)} requests during the rollout")
    assert len(answers) > 20
    assert set(answers) == {200}


def test_a_new_version_is_served_without_a_failed_request(served: Served, normal_png: bytes) -> None:  # noqa: F811
    folder = served.cluster.folder / "volumes" / "autoencoder-serving"
    shutil.copytree(folder / "7", folder / ".8.partial")
    (folder / ".8.partial").rename(folder / "8")
    login = f"Authorization: Bearer {TOKEN}"
    answers = []

    def new_version_everywhere() -> bool:
        answers.append(served.predict(normal_png)[0])
        shown = [served.status_of("/v1/models/autoencoder/metadata", "--header", login)[1] for _ in range(6)]
        return all('"version":"8"' in body.replace(" ", "") for body in shown)

    wait_until(new_version_everywhere, 60)
    assert set(answers) == {200}


def test_tensorflow_servings_manifest_runs_our_server(served: Served, normal_png: bytes) -> None:  # noqa: F811
    """deploy/kubernetes/serving.yaml with our image and program in the place of TensorFlow Serving's."""
    cluster = served.cluster
    manifests = _manifests("kubernetes/serving.yaml")
    [deployment] = [m for m in manifests if m["kind"] == "Deployment"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    command = ["autoencoder", "serve", "--own", "--host", "0.0.0.0"]  # noqa: S104
    container |= {"image": "localhost/autoencoder:serving", "imagePullPolicy": "Never", "command": command}
    container["args"] = [word for word in container["args"] if not word.startswith("--monitoring_config_file")]
    container["resources"]["requests"]["cpu"] = "100m"
    deployment["spec"]["replicas"] = 1
    cluster.apply(*manifests)
    wait_until(lambda: len(_ready_pods(cluster, "app.kubernetes.io/component=serving")) == 1, 120)
    address = cluster.get("service", "autoencoder")["spec"]["clusterIP"]
    answer = cluster.run("curl", "--silent", f"http://{address}:8501/v1/models/autoencoder")
    assert json.loads(answer)["model_version_status"][0]["state"] == "AVAILABLE"
