"""Simulates what a TFJob needs of a Kubernetes API server and the Training Operator; replicas are local processes."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml
from ports import free_port
from repository import REPOSITORY

NAMESPACE = "training"
_JOBS = f"/apis/kubeflow.org/v1/namespaces/{NAMESPACE}/tfjobs"
_PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"


@dataclass
class Cluster:
    """The state of the server."""

    folder: Path
    kubeconfig: Path
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    replicas: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Pods other than the replicas' ones."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    created: list[dict[str, Any]] = field(default_factory=list)

    def create(self, job: dict[str, Any]) -> None:
        name, worker = job["metadata"]["name"], job["spec"]["tfReplicaSpecs"]["Worker"]
        self.jobs[name] = job
        self.created.append(job)
        addresses = [f"localhost:{free_port()}" for _ in range(worker["replicas"])]
        [container] = worker["template"]["spec"]["containers"]
        assert container["name"] == "tensorflow"
        assert container["command"][0] == "python"
        for index in range(worker["replicas"]):
            # Like genTFConfigJSONStr in the operator's pkg/controller.v1/tensorflow/tensorflow.go.
            task = {"type": "worker", "index": index}
            tf_config = {"cluster": {"worker": addresses}, "task": task, "environment": "cloud"}
            variables = {variable["name"]: variable["value"] for variable in container["env"]}
            with self.log(f"{name}-worker-{index}").open("wb") as log:
                self.replicas[f"{name}-worker-{index}"] = subprocess.Popen(
                    [sys.executable, *container["command"][1:], *container.get("args", [])],
                    env={**os.environ, "PYTHONPATH": str(REPOSITORY), **variables, "TF_CONFIG": json.dumps(tf_config)},
                    cwd=self.folder,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )

    def delete(self, name: str) -> None:
        del self.jobs[name]
        for pod in [pod for pod in self.replicas if pod.startswith(name)]:
            process = self.replicas.pop(pod)
            process.kill()
            process.wait()

    def log(self, pod: str) -> Path:
        return self.folder / f"{pod}.log"

    def job(self, name: str) -> dict[str, Any]:
        """The job with conditions according to the operator's default success policy: worker 0 decides."""
        codes = [process.poll() for pod, process in self.replicas.items() if pod.startswith(name)]
        conditions = [{"type": "Running", "status": "True"}]
        if any(codes):
            conditions.append({"type": "Failed", "status": "True", "message": "1 Worker replica(s) failed."})
        elif codes and codes[0] == 0:
            conditions.append({"type": "Succeeded", "status": "True"})
        return {**self.jobs[name], "status": {"conditions": conditions}}

    def pod(self, name: str) -> dict[str, Any]:
        code = self.replicas[name].poll()
        phase = "Running" if code is None else "Failed" if code else "Succeeded"
        status: dict[str, Any] = {"phase": phase}
        if code is not None:
            # As kubelet reports it: 137 is how a container ends that exceeds its memory limit.
            reason = "OOMKilled" if code == -signal.SIGKILL else "Error" if code else "Completed"
            terminated = {"exitCode": 128 - code if code < 0 else code, "reason": reason}
            of_container = {"image": "", "imageID": "", "name": "tensorflow", "ready": False, "restartCount": 0}
            status["containerStatuses"] = [{**of_container, "state": {"terminated": terminated}}]
        return {"metadata": {"name": name, "uid": name}, "status": status}


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A server on this machine, and a kubeconfig file for it."""
    state = Cluster(folder, folder / "kubeconfig")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:  # noqa: N802 - http.server's name
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.requests.append(("POST", self.path))
            if self.path != _JOBS:
                return self._answer(404, {})
            if body["metadata"]["name"] in state.jobs:
                return self._answer(409, {"reason": "AlreadyExists"})
            state.create(body)
            return self._answer(201, body)

        def do_DELETE(self) -> None:  # noqa: N802
            name = urllib.parse.urlsplit(self.path).path.removeprefix(f"{_JOBS}/")
            state.requests.append(("DELETE", name))
            if name not in state.jobs:
                return self._answer(404, {})
            state.delete(name)
            return self._answer(200, {"status": "Success"})

        def do_GET(self) -> None:  # noqa: N802
            url = urllib.parse.urlsplit(self.path)
            query = dict(urllib.parse.parse_qsl(url.query))
            job, pod = url.path.removeprefix(f"{_JOBS}/"), url.path.removeprefix(f"{_PODS}/")
            if job in state.jobs:
                return self._answer(200, state.job(job))
            if url.path == _PODS:
                name = query["labelSelector"].removeprefix("training.kubeflow.org/job-name=")
                return self._answer(200, {"items": [state.pod(pod) for pod in state.replicas if pod.startswith(name)]})
            if pod in state.pods:
                return self._answer(200, state.pods[pod])
            if pod.endswith("/log") and query == {"container": "tensorflow", "follow": "True"}:
                return self._follow(pod.removesuffix("/log"))
            return self._answer(404, {})

        def _follow(self, pod: str) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            with state.log(pod).open("rb") as log:
                ended = False
                while not ended:
                    ended = pod not in state.replicas or state.replicas[pod].poll() is not None
                    chunk = log.read()
                    if chunk:
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                    time.sleep(0.05)
            self.wfile.write(b"0\r\n\r\n")

        def _answer(self, status: int, body: dict[str, Any]) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    named = {
        "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "me", "user": {"token": "x"}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me", "namespace": NAMESPACE}}],
    }
    state.kubeconfig.write_text(
        yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "current-context": "here", **named})
    )
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        for process in state.replicas.values():
            process.kill()
            process.wait()
