"""Downloads are verified, and interrupted ones are resumed (with a real local HTTP server)."""

import gzip
import hashlib
import http.server
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from components.sources.downloads import DownloadError, fetch_file

CONTENT = bytes(range(256)) * 400
PACKED = gzip.compress(CONTENT)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves PACKED with ranges; `/short` ends half-way, `/slow` waits there until `go_on` is set."""

    ranges: list[str] = []
    go_on = threading.Event()

    def do_GET(self):  # noqa: N802 - the library's name
        asked = self.headers.get("Range")
        self.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self.send_response(206 if asked else 200)
        body = PACKED[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        half = len(body) // 2
        self.wfile.write(body[:half])
        if self.path == "/slow":
            self.go_on.wait(30)
        if self.path != "/short":
            self.wfile.write(body[half:])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    Handler.ranges = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def names_in(folder):
    return [path.name for path in folder.iterdir() if path.suffix != ".lock"]


def test_a_complete_file_is_kept(server, tmp_path):
    fetch_file(f"{server}/file", tmp_path / "sub" / "file.gz", sha256=SHA256)
    assert (tmp_path / "sub" / "file.gz").read_bytes() == PACKED
    assert names_in(tmp_path / "sub") == ["file.gz"]


def test_an_interrupted_download_is_resumed(server, tmp_path):
    (tmp_path / "file.gz.part").write_bytes(PACKED[:100])
    fetch_file(f"{server}/file", tmp_path / "file.gz", sha256=SHA256)
    assert Handler.ranges == ["bytes=100-"]
    assert (tmp_path / "file.gz").read_bytes() == PACKED


def test_a_download_whose_connection_ends_early_is_resumed(server, tmp_path):
    half = len(PACKED) // 2
    with pytest.raises(DownloadError, match="ended early; run again to resume"):
        fetch_file(f"{server}/short", tmp_path / "file.gz", sha256=SHA256)
    assert (tmp_path / "file.gz.part").read_bytes() == PACKED[:half]
    fetch_file(f"{server}/file", tmp_path / "file.gz", sha256=SHA256)
    assert Handler.ranges == [None, f"bytes={half}-"]
    assert (tmp_path / "file.gz").read_bytes() == PACKED


def test_wrong_content_is_discarded(server, tmp_path):
    with pytest.raises(DownloadError, match="does not match"):
        fetch_file(f"{server}/file", tmp_path / "file.gz", sha256="0" * 64)
    assert not names_in(tmp_path)


def test_a_network_error_names_the_remedy(tmp_path):
    with pytest.raises(DownloadError, match=r"set data\.path"):
        fetch_file("http://127.0.0.1:9/file", tmp_path / "file.gz", sha256=SHA256)


def test_a_second_download_of_a_file_waits_for_the_first(server, tmp_path, caplog):
    caplog.set_level("INFO")
    Handler.go_on.clear()
    with ThreadPoolExecutor() as pool:
        downloads = [pool.submit(fetch_file, f"{server}/slow", tmp_path / "file.gz", sha256=SHA256) for _ in range(2)]
        try:
            wait_until(lambda: Handler.ranges and "waiting for another process" in caplog.text)
        finally:
            Handler.go_on.set()
    for download in downloads:
        download.result()
    assert Handler.ranges == [None]
    assert (tmp_path / "file.gz").read_bytes() == PACKED


def wait_until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
