"""The checks of `autoencoder doctor`: one function per check, each with a remedy.

This process imports nothing heavy, since that may be missing or broken.
"""

import importlib.metadata
import os
import platform
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.metadata.store import METADATA_FILE, check_file, holders
from pipeline.packages import DISTRIBUTION, PACKAGES, REMEDY, collision, other_owners
from runtime.memory import available_gb
from schema.signatures import DEFAULT_GRPC_PORT, DEFAULT_REST_PORT
from serving.server.settings import ServerSettings

OK, MISSING, BROKEN = "ok", "optional", "broken"
"""`optional`: something that only some uses need is missing; `broken`: the pipeline cannot run."""

SET_UP = "make setup"
_PYTHONS = ((3, 10), (3, 13))
"""The oldest and the newest; 3.10 with TFX 1.16, later ones with TFX 1.21."""
_GLIBC_OF_NEWER_TFX = (2, 39)
_FREE_DISK_GB = 5
_FREE_MEMORY_GB = 3
_TIMEOUT_S = 120
_ENGINE_TIMEOUT_S = 20
_LOCK_TIMEOUT_S = 1.0
_PACKAGES = (
    "tensorflow", "tf-keras", "tfx", "tensorflow-transform", "tensorflow-data-validation",
    "tensorflow-model-analysis", "ml-metadata", "apache-beam",
)  # fmt: skip
_PROBE = """
import os
os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf
print("keras", tf.keras.Model.__module__)
print("gpus", len(tf.config.list_physical_devices("GPU")))
"""


@dataclass(frozen=True)
class Finding:
    """The outcome of one check; `remedy` is empty if there is nothing to do."""

    what: str
    state: str
    detail: str
    remedy: str = ""


def examine(root: Path) -> Iterator[Finding]:
    """Check this machine and the runs below `root`, the most important things first."""
    yield _python()
    yield _glibc()
    yield _own_packages()
    yield from map(_package, _PACKAGES)
    yield from _tensorflow()
    yield _memory()
    yield _writable(root)
    yield _disk(root)
    yield from _metadata_stores(root)
    yield _port(DEFAULT_GRPC_PORT, "gRPC")
    yield _port(DEFAULT_REST_PORT, "REST")
    yield _package("kfp", "autoencoder compile, submit, schedule", "install the extra: pip install '.[kubeflow]'")
    yield _program("java", "Beam's Flink and Spark job servers", "install Java 17 (Debian: openjdk-17-jre-headless)")
    yield _container_engine()
    yield _program(
        "tensorflow_model_server",
        "serving with TensorFlow Serving instead of this project's local server",
        "nothing to do: autoencoder serve works without it",
    )


def _python() -> Finding:
    version, (oldest, newest) = platform.python_version(), _PYTHONS
    if not oldest <= sys.version_info[:2] <= newest:
        detail = f"{version}; TFX 1.21 installs on 3.11 to 3.13, TFX 1.16 on 3.10"
        return Finding("Python", BROKEN, detail, f"{SET_UP} PYTHON=/path/to/python3.13")
    if sys.version_info[:2] == oldest:
        return Finding("Python", OK, f"{version} at {sys.executable} (no security fixes since October 2026)")
    return Finding("Python", OK, f"{version} at {sys.executable}")


def _glibc() -> Finding:
    library, version = platform.libc_ver()
    if library != "glibc":
        remedy = "use a glibc system such as Debian or Ubuntu, or deploy/Dockerfile"
        return Finding("C library", BROKEN, f"{library or 'unknown'}: TensorFlow's wheels are for glibc", remedy)
    newer = tuple(map(int, version.split(".")[:2])) >= _GLIBC_OF_NEWER_TFX
    return Finding("C library", OK, f"glibc {version}, {'new enough' if newer else 'too old'} for TFX 1.21")


def _own_packages() -> Finding:
    for package in PACKAGES:
        if owners := other_owners(package):
            return Finding("own packages", BROKEN, f"'{package}' is also installed by {owners}", REMEDY)
    if problem := collision():
        return Finding("own packages", BROKEN, problem, REMEDY)
    return Finding("own packages", OK, f"all from {DISTRIBUTION} {importlib.metadata.version(DISTRIBUTION)}")


def _package(name: str, use: str = "", remedy: str = SET_UP) -> Finding:
    """Whether a package is installed that the pipeline needs or, if `use` is given, only that use."""
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        if use:
            return Finding(name, MISSING, f"not installed; needed for {use}", remedy)
        return Finding(name, BROKEN, "not installed", remedy)
    return Finding(name, OK, f"{version}, for {use}" if use else version)


def _tensorflow() -> Iterator[Finding]:
    """Import TensorFlow in its own process, since a broken native library would kill this one."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        yield Finding("TensorFlow starts", BROKEN, f"not within {_TIMEOUT_S} s", "check the load of this machine")
        return
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"signal {-done.returncode}"])[-1]
        yield Finding("TensorFlow starts", BROKEN, last, f"make clean && {SET_UP}; a CPU without AVX cannot run it")
        return
    output = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    keras = output.get("keras", "unknown")
    if keras.startswith("tf_keras."):
        yield Finding("TensorFlow starts", OK, "with Keras 2 (tf_keras)")
    else:
        yield Finding("TensorFlow starts", BROKEN, f"with {keras}; tf_keras is needed", f"make clean && {SET_UP}")
    yield _gpu(int(output.get("gpus", "0")))


def _gpu(seen_by_tensorflow: int, timeout_s: float = _ENGINE_TIMEOUT_S) -> Finding:
    if seen_by_tensorflow:
        return Finding("GPU", OK, f"TensorFlow sees {seen_by_tensorflow}")
    if not shutil.which("nvidia-smi"):
        return Finding("GPU", MISSING, "none; training runs on the CPU")
    listed = _result_of("nvidia-smi", "-L", timeout_s=timeout_s)
    if listed.returncode:
        detail = f"the driver does not respond: {(listed.stdout or listed.stderr).strip()}"
        return Finding("GPU", MISSING, detail, "install NVIDIA's driver 545 or newer, then restart the machine")
    return Finding(
        "GPU",
        MISSING,
        f"{listed.stdout.splitlines()[0]}: not visible to TensorFlow",
        "install the CUDA libraries: uv pip install --require-hashes -r deploy/requirements-gpu.lock",
    )


def _memory() -> Finding:
    free_gb = available_gb()
    if free_gb is None:
        return Finding("memory", MISSING, "cannot be read on this system")
    if free_gb < _FREE_MEMORY_GB:
        remedy = "close other programs; for large images lower trainer.batch_size and trainer.cache_mb"
        return Finding("memory", BROKEN, f"{free_gb:.1f} GB available, {_FREE_MEMORY_GB} GB needed", remedy)
    return Finding("memory", OK, f"{free_gb:.1f} GB available")


def _writable(root: Path) -> Finding:
    nearest = _nearest_folder(root)
    if os.access(nearest, os.W_OK | os.X_OK):
        return Finding("runs folder", OK, f"{root.absolute()} is writable")
    return Finding("runs folder", BROKEN, f"{nearest} is not writable", "choose another folder: --set root=FOLDER")


def _disk(root: Path) -> Finding:
    free_gb = shutil.disk_usage(_nearest_folder(root)).free / 2**30
    if free_gb < _FREE_DISK_GB:
        remedy = f"delete old runs in {root}, or set push.keep and root"
        return Finding("disk", BROKEN, f"{free_gb:.1f} GB free, {_FREE_DISK_GB} GB recommended", remedy)
    return Finding("disk", OK, f"{free_gb:.1f} GB free")


def _nearest_folder(root: Path) -> Path:
    return next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.is_dir())


def _metadata_stores(root: Path) -> Iterator[Finding]:
    for store in sorted(root.glob(f"*/{METADATA_FILE}")):
        what = f"metadata of {store.parent.name}"
        try:
            check_file(store, wait_s=_LOCK_TIMEOUT_S)
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                yield Finding(
                    what, BROKEN, f"{store} is locked by {holders(store)}", "end that process; a run waits for a minute"
                )
            else:
                yield Finding(what, BROKEN, f"{store}: {error}", "make the file and its folder writable")
        except sqlite3.DatabaseError as error:
            remedy = f"move {store} aside: the next run creates a new one; pushed models are not affected"
            yield Finding(what, BROKEN, str(error), remedy)
        else:
            yield Finding(what, OK, str(store))


def _port(port: int, use: str) -> Finding:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ServerSettings.host, port))
        except OSError as error:
            flag = "--rest_api_port" if use == "REST" else "--port"
            return Finding(f"port {port}", MISSING, f"{use}: {error.strerror}", f"autoencoder serve {flag}=ANOTHER")
    return Finding(f"port {port}", OK, f"free for {use}")


def _program(name: str, use: str, remedy: str) -> Finding:
    if found := shutil.which(name):
        return Finding(name, OK, f"{found}, for {use}")
    return Finding(name, MISSING, f"not found; only needed for {use}", remedy)


def _result_of(*command: str, timeout_s: float) -> "subprocess.CompletedProcess[str]":
    """The result of a program that may hang; a failure after the timeout."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no response within {timeout_s} s")


def _container_engine(timeout_s: float = _ENGINE_TIMEOUT_S) -> Finding:
    """The first engine that responds: a client may be installed without a running engine."""
    for engine in filter(shutil.which, ("docker", "podman")):
        if _result_of(engine, "info", timeout_s=timeout_s).returncode == 0:
            return Finding("container engine", OK, f"{engine}, for deploy/Dockerfile")
    remedy = "install Docker or Podman, and start it"
    return Finding("container engine", MISSING, "none is running; only needed to build deploy/Dockerfile", remedy)
