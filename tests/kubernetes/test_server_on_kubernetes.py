"""Our server on a real Kubernetes, by the manifests of deploy/."""

import base64
import json
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from kubernetes_cluster import Cluster
from kubernetes_objects import (
    IMAGE,
    Manifest,
    deployment_of,
    end_of_pod,
    manifests,
    process_of,
    ready_pods,
    start_pod,
    volume,
)
from served_models import image_model, normal_png  # noqa: F401 - fixtures
from waiting import wait_until

from pipeline.kubeflow.names import USER_ID

pytestmark = pytest.mark.kubernetes
TOKEN = "a-token-for-this-test"  # noqa: S105
LOGIN = ("--header", f"Authorization: Bearer {TOKEN}")
MODELS = 100
MODELS_CPU = "150m"
"""Of the server of a hundred models: little enough that loading them takes more than two minutes."""
CLIENT = """
import json, sys
from pathlib import Path
from typing import Any
from serving.client import Login, score_images
login = Login(token=Path("/tokens/tokens").read_text().strip(), ca_file=Path("/tls/tls.crt"))
for server in sys.argv[1:]:
    [score] = score_images([Path("/images/normal.png")], server=server, login=login)
    print(server, score.is_anomaly)
"""


class Served:
    """A server on the cluster, and requests to its Service."""

    def __init__(self, cluster: Cluster, certificate: Path, name: str, labels: str) -> None:
        self.cluster, self._certificate, self._name, self.labels = cluster, certificate, name, labels

    def status_of(self, path: str, *options: str, address: str | None = None, timeout_s: int = 10) -> tuple[int, str]:
        """(HTTP status, body) of a request to the Service's address, or to that of a pod."""
        address = address or self.cluster.get("service", self._name)["spec"]["clusterIP"]
        where = ["--resolve", f"autoencoder-server:8501:{address}", f"https://autoencoder-server:8501{path}"]
        how = ["--silent", "--max-time", timeout_s, "--cacert", self._certificate, "--write-out", "\n%{http_code}"]
        body, _, status = self.cluster.run("curl", *how, *options, *where, check=False).rpartition("\n")
        return int(status), body

    def predict(self, image: bytes, model: str = "autoencoder", **to: Any) -> tuple[int, str]:
        body = json.dumps({"instances": [{"b64": base64.b64encode(image).decode()}]})
        return self.status_of(f"/v1/models/{model}:predict", *LOGIN, "--data", body, **to)

    def ready(self) -> int:
        return len(ready_pods(self.cluster, self.labels))

    def pods(self) -> list[Manifest]:
        return list(self.cluster.get("pods", "-l", self.labels)["items"])

    def restarts(self, pod: str) -> int:
        [status] = self.cluster.get("pod", pod)["status"]["containerStatuses"]
        return int(status["restartCount"])


@pytest.fixture(scope="module")
def certificate(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of autoencoder-server; the cluster has it, its key and a token as Secrets."""
    files = tmp_path_factory.mktemp("tls")
    certificate, key = files / "tls.crt", files / "tls.key"
    subject = ["-subj", "/CN=autoencoder-server", "-addext", "subjectAltName=DNS:autoencoder-server"]
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    subprocess.run([*new, *subject, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    cluster.kubectl("create", "secret", "tls", "autoencoder-tls", f"--cert={certificate}", f"--key={key}")
    cluster.kubectl("create", "secret", "generic", "autoencoder-tokens", f"--from-literal=tokens={TOKEN}")
    return certificate


def _claimed_volume(cluster: Cluster, name: str) -> Path:
    folder = volume(cluster, name)
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    cluster.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec})
    return folder


def _push(versions: Path, folder: Path) -> None:
    """As a push leaves them. Kubernetes does not change the group of a volume that it mounts read-only."""
    shutil.copytree(versions, folder, dirs_exist_ok=True)
    subprocess.run(["chmod", "-R", "a+rX", folder], check=True)


@pytest.fixture(scope="module")
def versions(cluster: Cluster, image_model: Path) -> Path:  # noqa: F811
    """The claim of both manifests, with one version."""
    folder = _claimed_volume(cluster, "autoencoder-serving")
    _push(image_model, folder)
    return folder


@pytest.fixture(scope="module")
def served(cluster: Cluster, certificate: Path, versions: Path) -> Served:
    """deploy/kubernetes/server.yaml with our image."""
    documents = manifests("kubernetes/server.yaml")
    deployment_of(documents, IMAGE)
    cluster.apply(*documents)
    started = Served(cluster, certificate, "autoencoder-server", "app.kubernetes.io/component=server")
    # Two, from the autoscaler's minimum: it needs no metric for that.
    wait_until(lambda: started.ready() == 2, 180)
    return started


def test_our_server_scores_an_image_through_its_service(served: Served, normal_png: bytes) -> None:  # noqa: F811
    status, body = served.predict(normal_png)
    assert status == 200, body
    assert json.loads(body)["predictions"][0]["is_anomaly"] == 0
    assert served.status_of("/v1/models/autoencoder")[0] == 401
    assert served.status_of("/readyz")[0] == 200


def test_a_pod_scores_by_the_services_name_over_both_protocols(
    served: Served,
    tmp_path: Path,
    normal_png: bytes,  # noqa: F811
) -> None:
    """Our Python client, with the certificate and the token from the Secrets."""
    (tmp_path / "normal.png").write_bytes(normal_png)
    served.cluster.kubectl("create", "configmap", "images", f"--from-file={tmp_path / 'normal.png'}")
    servers = ["https://autoencoder-server:8501", "grpcs://autoencoder-server:8500"]
    sources = {
        "tls": {"secret": {"secretName": "autoencoder-tls"}},
        "tokens": {"secret": {"secretName": "autoencoder-tokens"}},
        "images": {"configMap": {"name": "images"}},
    }
    mounts = [{"name": name, "mountPath": f"/{name}"} for name in sources]
    volumes = [{"name": name, **source} for name, source in sources.items()]
    command = ["python", "-c", CLIENT, *servers]
    start_pod(served.cluster, "client", IMAGE, command, container={"volumeMounts": mounts}, volumes=volumes)
    log = end_of_pod(served.cluster, "client")["log"]
    assert [line for line in log.splitlines() if line.endswith((" True", " False"))] == [
        f"{s} False" for s in servers
    ], log


def test_its_file_system_is_read_only_and_its_user_is_not_root(served: Served) -> None:
    pod = ready_pods(served.cluster, served.labels)[0]["metadata"]["name"]
    inside = ("exec", pod, "--", "sh", "-c")
    assert served.cluster.kubectl(*inside, "id -u; id -g").split() == [str(USER_ID), str(USER_ID)]
    assert "Read-only file system" in served.cluster.kubectl(*inside, "touch /opt/a 2>&1 || true")
    assert served.cluster.kubectl(*inside, "touch /tmp/a && echo done").strip() == "done"


def test_a_server_that_ends_is_restarted_and_becomes_ready(served: Served) -> None:
    pod = ready_pods(served.cluster, served.labels)[0]["metadata"]["name"]
    before = served.restarts(pod)
    served.cluster.kubectl("exec", pod, "--", "python", "-c", "import os, signal; os.kill(1, signal.SIGTERM)")
    wait_until(lambda: served.restarts(pod) == before + 1, 60)
    wait_until(lambda: served.ready() == 2, 120)


def _hang_and_see_it_restarted(server: Served, replicas: int) -> None:
    """A stopped process still accepts connections, so only an answer shows that it is alive."""
    pod = ready_pods(server.cluster, server.labels)[0]
    name = pod["metadata"]["name"]
    before = server.restarts(name)
    subprocess.run(["kill", "-STOP", process_of(server.cluster, pod)], check=True)
    wait_until(lambda: server.ready() == replicas - 1, 60)  # no longer receives requests
    wait_until(lambda: server.restarts(name) == before + 1, 240)
    wait_until(lambda: server.ready() == replicas, 120)


def test_a_server_that_hangs_is_restarted(served: Served) -> None:
    _hang_and_see_it_restarted(served, replicas=2)


def test_a_rollout_fails_no_request(served: Served, normal_png: bytes) -> None:  # noqa: F811
    """Requests are sent one after another, each on a new connection, while all pods are replaced."""
    answers: list[int] = []
    ended = threading.Event()

    def send() -> None:
        while not ended.is_set():
            answers.append(served.predict(normal_png)[0])

    thread = threading.Thread(target=send)
    thread.start()
    old = {pod["metadata"]["name"] for pod in ready_pods(served.cluster, served.labels)}
    served.cluster.kubectl("rollout", "restart", "deployment/autoencoder-server")
    served.cluster.kubectl("rollout", "status", "deployment/autoencoder-server", "--timeout=240s")
    wait_until(lambda: not old & {p["metadata"]["name"] for p in served.pods()}, 90)
    time.sleep(2)
    ended.set()
    thread.join()
    print(f"{len(answers)} requests during the rollout")
    assert len(answers) > 20
    assert set(answers) == {200}


def test_a_new_version_is_served_without_a_failed_request(
    served: Served,
    versions: Path,
    normal_png: bytes,  # noqa: F811
) -> None:
    shutil.copytree(versions / "7", versions / ".8.partial")
    (versions / ".8.partial").rename(versions / "8")
    answers = []

    def new_version_everywhere() -> bool:
        answers.append(served.predict(normal_png)[0])
        shown = [served.status_of("/v1/models/autoencoder/metadata", *LOGIN)[1] for _ in range(6)]
        return all('"version":"8"' in body.replace(" ", "") for body in shown)

    wait_until(new_version_everywhere, 60)
    assert set(answers) == {200}


class Starting(Served):
    """A server by deploy/kubernetes/server.yaml under another name, alone, with other versions and arguments."""

    def __init__(self, cluster: Cluster, certificate: Path, name: str, arguments: list[str], cpu: str) -> None:
        super().__init__(cluster, certificate, name, f"app.kubernetes.io/component={name}")
        documents = manifests("kubernetes/server.yaml")
        deployment, container = deployment_of(documents, IMAGE)
        deployment["metadata"]["name"] = name
        labels = {"app.kubernetes.io/name": "autoencoder", "app.kubernetes.io/component": name}
        deployment["spec"]["selector"]["matchLabels"] = deployment["spec"]["template"]["metadata"]["labels"] = labels
        place = container["args"].index("--model_base_path")
        container["args"][place : place + 2] = arguments
        container["resources"]["limits"] = {"cpu": cpu, "memory": "6Gi"}
        versions = deployment["spec"]["template"]["spec"]["volumes"][0]
        versions["persistentVolumeClaim"]["claimName"] = name
        self.started_at = time.monotonic()
        cluster.apply(deployment)

    def address(self) -> str:
        """That of its pod; empty while there is none."""
        return "".join(pod["status"].get("podIP", "") for pod in self.pods())

    def is_alive(self) -> bool:
        return bool(self.address()) and self.status_of("/livez", address=self.address())[0] == 200

    def wait_until_ready(self, timeout_s: float) -> float:
        """Seconds since the start, in which it was never restarted."""
        wait_until(lambda: self.ready() == 1, timeout_s)
        [pod] = self.pods()
        assert self.restarts(pod["metadata"]["name"]) == 0
        return time.monotonic() - self.started_at


def test_a_hundred_models_and_no_model_at_all_are_given_the_time_they_need(
    cluster: Cluster,
    certificate: Path,
    image_model: Path,  # noqa: F811
    normal_png: bytes,  # noqa: F811
) -> None:
    """Neither server is killed while it has nothing ready to serve, for two minutes and more; each becomes ready."""
    empty_folder, full_folder = (_claimed_volume(cluster, name) for name in ("empty-server", "full-server"))
    names = [f"part-{number:03}" for number in range(MODELS)]
    for name in names:
        _push(image_model, full_folder / name)
    entry = 'config {{ name: "{0}" base_path: "/models/autoencoder/{0}" model_platform: "tensorflow" }}'
    config = f"model_config_list {{ {' '.join(map(entry.format, names))} }}"
    (full_folder / "models.config").write_text(config, encoding="utf-8")
    several = ["--model_config_file", "/models/autoencoder/models.config"]
    empty = Starting(cluster, certificate, "empty-server", ["--model_base_path", "/models/autoencoder"], "2")
    full = Starting(cluster, certificate, "full-server", several, MODELS_CPU)

    wait_until(full.is_alive, 240)
    slow = {"address": full.address(), "timeout_s": 60}
    assert full.predict(normal_png, names[-1], **slow)[0] == 200  # loaded first, since a request waits for it
    assert full.ready() == 0
    full_s = full.wait_until_ready(900)
    print(f"{MODELS} models with {MODELS_CPU} CPU: ready after {full_s:.0f} s")
    assert full_s > 120
    assert {full.predict(normal_png, name, **slow)[0] for name in names} == {200}

    assert empty.is_alive()
    assert empty.ready() == 0
    _push(image_model, empty_folder)
    empty.wait_until_ready(60)
    cluster.kubectl("delete", "deployment", "empty-server", "full-server")


@pytest.fixture(scope="module")
def plain(cluster: Cluster, certificate: Path, versions: Path) -> Served:
    """deploy/kubernetes/serving.yaml with our image and program in the place of TensorFlow Serving's."""
    documents = manifests("kubernetes/serving.yaml")
    deployment, container = deployment_of(documents, IMAGE)
    container["command"] = ["autoencoder", "serve", "--own", "--host", "0.0.0.0"]  # noqa: S104
    container["args"] = [word for word in container["args"] if not word.startswith("--monitoring_config_file")]
    deployment["spec"]["replicas"] = 1
    cluster.apply(*documents)
    started = Served(cluster, certificate, "autoencoder", "app.kubernetes.io/component=serving")
    wait_until(lambda: started.ready() == 1, 120)
    return started


def test_tensorflow_servings_manifest_runs_our_server(plain: Served) -> None:
    address = plain.cluster.get("service", "autoencoder")["spec"]["clusterIP"]
    answer = plain.cluster.run("curl", "--silent", f"http://{address}:8501/v1/models/autoencoder")
    assert json.loads(answer)["model_version_status"][0]["state"] == "AVAILABLE"


def test_tensorflow_servings_manifest_restarts_a_server_that_hangs(plain: Served) -> None:
    _hang_and_see_it_restarted(plain, replicas=1)
