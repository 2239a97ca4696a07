"""An S3 server on this machine (moto), accessed through the real protocol."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow import fs as arrow

from runtime import object_store, tfx_filesystem
from runtime.object_store import REHEARSAL_STORE_VARIABLE

MOTO_SERVER = Path(sys.executable).with_name("moto_server")
START_TIMEOUT_S = 30


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [MOTO_SERVER, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        assert server.poll() is None, f"{MOTO_SERVER} ended with status {server.returncode}"
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    server.terminate()
    server.wait()


@pytest.fixture
def s3(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[arrow.S3FileSystem]:
    for variable, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.delenv(REHEARSAL_STORE_VARIABLE, raising=False)
    options = object_store.connection_options(os.environ)
    arrow.S3FileSystem(**options, allow_bucket_creation=True).create_dir("bucket")
    object_store.store.cache_clear()
    tfx_filesystem.register({})
    yield object_store.connect(os.environ)
    object_store.store.cache_clear()
