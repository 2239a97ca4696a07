"""A Kubernetes cluster of one node on this machine: real programs, in a network namespace of their own.

`tests/kubernetes/prepare.sh` builds the programs and the images. The namespace has no way out, so nothing is pulled.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from waiting import wait_until

NODE_IP, POD_NETWORK, SERVICE_NETWORK = "10.99.0.1", "10.88.0.0/16", "10.96.0.0/16"
DOMAIN = "cluster.local"
NETWORK = "autoencoder-k8s"
NEEDED = ("etcd", "containerd", "ctr", "runc", "buildah", "debootstrap", "iptables", "conntrack", "go", "nsenter", "ip")


@dataclass(frozen=True)
class Cluster:
    """A running cluster; commands run in its network."""

    folder: Path
    programs: Path

    def run(self, *command: object, stdin: str | None = None, check: bool = True, timeout_s: float = 300) -> str:
        """The standard output of a command; fails with both outputs."""
        done = subprocess.run(
            ["nsenter", f"--net=/run/netns/{NETWORK}", *map(str, command)],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
        assert done.returncode == 0 or not check, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout

    def kubectl(self, *arguments: object, stdin: str | None = None, check: bool = True) -> str:
        config = f"--kubeconfig={self.folder / 'kubeconfig'}"
        return self.run(self.programs / "kubectl", config, *arguments, stdin=stdin, check=check)

    def ctr(self, *arguments: object, timeout_s: float = 300) -> str:
        """containerd's own client, for the images and containers of pods."""
        socket = self.folder / "containerd.sock"
        return self.run("ctr", "--address", socket, "--namespace", "k8s.io", *arguments, timeout_s=timeout_s)

    def get(self, *arguments: object) -> dict[str, Any]:
        return dict(json.loads(self.kubectl("get", "-o", "json", *arguments)))

    def apply(self, *manifests: dict[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", stdin="\n---\n".join(map(json.dumps, manifests)))


def missing_tools() -> list[str]:
    """The programs and kernel features that this machine lacks."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if os.geteuid() != 0:
        missing.append("root")
    if "overlay" not in Path("/proc/filesystems").read_text():
        missing.append("overlayfs")
    return missing


@contextlib.contextmanager
def running_cluster(cache: Path, folder: Path) -> Iterator[Cluster]:
    """Start all programs, wait for the node, and import the images; stops everything afterwards."""
    cluster = Cluster(folder, cache / "bin")
    _make_network()
    processes: list[subprocess.Popen[bytes]] = []
    try:
        _write_settings(folder)
        for name, command in _commands(folder, cache / "bin").items():
            with (folder / f"{name}.log").open("wb") as log:
                inside = ["nsenter", f"--net=/run/netns/{NETWORK}", *command]
                processes.append(subprocess.Popen(inside, stdout=log, stderr=subprocess.STDOUT))
            _wait_for(name, cluster, folder)
        for archive in sorted(cache.glob("*.tar")):
            cluster.ctr("images", "import", archive, timeout_s=1200)
        wait_until(lambda: "True" in _node_ready(cluster), 120)
        yield cluster
    finally:
        _stop(cluster, processes)


def _make_network() -> None:
    script = f"""
        ip netns delete {NETWORK} 2> /dev/null || true
        ip netns add {NETWORK}
        in="nsenter --net=/run/netns/{NETWORK}"
        $in ip link set lo up
        $in ip link add node0 type bridge
        $in ip address add {NODE_IP}/24 dev node0
        $in ip link set node0 up
        $in ip route add default dev node0
        $in sh -c "echo 1 > /proc/sys/net/ipv4/ip_forward"
        $in sh -c "echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables" || true
    """
    subprocess.run(["/bin/sh", "-ec", script], check=True)


def _write_settings(folder: Path) -> None:
    token = secrets.token_hex(16)
    subprocess.run(["openssl", "genrsa", "-out", folder / "account.key", "2048"], check=True, capture_output=True)
    (folder / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
    server = {"server": f"https://{NODE_IP}:6443", "insecure-skip-tls-verify": True}
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "here", "cluster": server}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "admin"}}],
        "current-context": "here",
    }
    (folder / "kubeconfig").write_text(json.dumps(kubeconfig))
    kubelet = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "containerRuntimeEndpoint": f"unix://{folder}/containerd.sock",
        "failSwapOn": False,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,  # never: an image that is removed to free the disk cannot be pulled again
        "resolvConf": "/dev/null",
        "clusterDNS": [NODE_IP],
        "clusterDomain": DOMAIN,
        "podLogsDir": f"{folder}/pod-logs",
    }
    (folder / "kubelet.yaml").write_text(json.dumps(kubelet))
    (folder / "Corefile").write_text(f"""
{DOMAIN}:53 {{
    bind {NODE_IP}
    errors
    kubernetes {DOMAIN} {{
        kubeconfig {folder}/kubeconfig
    }}
}}
""")
    (folder / "containerd.toml").write_text(f"""
version = 2
root = "{folder}/containerd"
state = "{folder}/containerd-state"
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{folder}/cni"
""")
    network = {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "pods0",
                "isGateway": True,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": f"{folder}/addresses",
                    "ranges": [[{"subnet": POD_NETWORK}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            }
        ],
    }
    (folder / "cni").mkdir()
    (folder / "cni" / "10-pods.conflist").write_text(json.dumps(network))


def _commands(folder: Path, programs: Path) -> dict[str, list[str]]:
    config = f"--kubeconfig={folder}/kubeconfig"
    account = f"{folder}/account.key"
    return {
        "etcd": ["etcd", f"--data-dir={folder}/etcd", "--log-level=error"],
        "containerd": ["containerd", "--config", f"{folder}/containerd.toml"],
        "kube-apiserver": [
            f"{programs}/kube-apiserver",
            "--etcd-servers=http://127.0.0.1:2379",
            f"--advertise-address={NODE_IP}",
            f"--cert-dir={folder}/apiserver",
            f"--token-auth-file={folder}/tokens.csv",
            "--authorization-mode=RBAC",
            f"--service-cluster-ip-range={SERVICE_NETWORK}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={account}",
            f"--service-account-signing-key-file={account}",
            "--kubelet-preferred-address-types=InternalIP",
        ],
        "kube-controller-manager": [
            f"{programs}/kube-controller-manager",
            config,
            "--leader-elect=false",
            f"--service-account-private-key-file={account}",
            f"--root-ca-file={folder}/apiserver/apiserver.crt",
            "--horizontal-pod-autoscaler-sync-period=5s",
        ],
        "names": [f"{programs}/names", "-conf", f"{folder}/Corefile"],
        "kube-scheduler": [f"{programs}/kube-scheduler", config, "--leader-elect=false"],
        "kube-proxy": [
            f"{programs}/kube-proxy",
            config,
            "--hostname-override=node",
            f"--cluster-cidr={POD_NETWORK}",
            "--conntrack-max-per-core=0",
        ],
        "kubelet": [
            f"{programs}/kubelet",
            config,
            f"--config={folder}/kubelet.yaml",
            f"--root-dir={folder}/kubelet",
            "--hostname-override=node",
            f"--node-ip={NODE_IP}",
        ],
    }


def _wait_for(name: str, cluster: Cluster, folder: Path) -> None:
    if name == "containerd":
        wait_until((folder / "containerd.sock").exists, 30)
    if name == "kube-apiserver":
        wait_until(lambda: cluster.kubectl("get", "--raw", "/readyz", check=False) == "ok", 90)


def _node_ready(cluster: Cluster) -> str:
    path = "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}"
    return cluster.kubectl("get", "nodes", "-o", path, check=False)


def _stop(cluster: Cluster, processes: list[subprocess.Popen[bytes]]) -> None:
    """Stop the pods first, whose processes belong to containerd's shims."""
    if len(processes) > 2:
        cluster.kubectl("delete", "deployments,pods,jobs", "--all", "--grace-period=1", "--timeout=60s", check=False)
    for process in reversed(processes):
        process.send_signal(signal.SIGTERM)
    for process in reversed(processes):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.wait()
    time.sleep(1)
    for mount in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        if (point := mount.split()[1]).startswith(f"{cluster.folder}/"):
            subprocess.run(["umount", "--lazy", point], check=False)
    subprocess.run(["ip", "netns", "delete", NETWORK], check=False)
