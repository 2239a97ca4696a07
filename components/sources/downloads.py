"""Downloads MNIST and Fashion-MNIST once, resumes interrupted downloads, and verifies the content."""

import contextlib
import fcntl
import gzip
import hashlib
import http.client
import logging
import os
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path

from runtime.errors import UsageError

_LOG = logging.getLogger(__name__)
_CHUNK_BYTES = 1 << 18
_TIMEOUT_S = 30

BASE_URLS = {
    "mnist": "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "fashion_mnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
}
SHA256_UNCOMPRESSED = {
    # Of the uncompressed content, because mirrors compress the same files differently.
    "mnist": {
        "train-images-idx3-ubyte.gz": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte.gz": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte.gz": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte.gz": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    "fashion_mnist": {
        "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
}


class DownloadError(UsageError):
    """A file could not be downloaded completely; the message names the remedy."""


def cache_folder() -> Path:
    """Where downloads are kept: `$XDG_CACHE_HOME/tfx-image-autoencoder`, by default below `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tfx-image-autoencoder"


def fetch(source: str) -> Path:
    """The folder with the source's four files; downloads those that are missing.

    Raises DownloadError if the network fails or the content is wrong.
    """
    folder = cache_folder() / source
    for name, sha256 in SHA256_UNCOMPRESSED[source].items():
        if not (folder / name).exists():
            fetch_file(BASE_URLS[source] + name, folder / name, sha256=sha256)
    return folder


def fetch_file(url: str, target: Path, *, sha256: str) -> None:
    """Download a gzip file to `<target>.part`, resuming an interrupted download; rename it after verification.

    If another process is downloading it, wait and use its file.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target):
        if not target.exists():
            _fetch_locked(url, target, sha256=sha256)


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    """One download at a time. The lock file is kept: if it were removed, two processes could lock files of one name."""
    with target.with_name(target.name + ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _LOG.info("waiting for another process that is downloading %s", target)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch_locked(url: str, target: Path, *, sha256: str) -> None:
    part = target.with_name(target.name + ".part")
    done_bytes = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done_bytes}-"} if done_bytes else {})
    _LOG.info("downloading %s", url)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            resumed = response.status == 206
            with part.open("ab" if resumed else "wb") as file:
                while chunk := response.read(_CHUNK_BYTES):
                    file.write(chunk)
            if response.length:  # bytes that were announced and did not come
                raise ConnectionError("the connection ended early")
    except urllib.error.HTTPError as error:
        if error.code != 416:  # "range not satisfiable": the partial file is already complete
            raise DownloadError(
                f"{url}: the server answered {error.code} {error.reason}; run again later, or download the files by "
                "other means and set data.path to their folder"
            ) from None
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(
            f"{url}: {getattr(error, 'reason', error)}; run again to resume, or download the files by "
            "other means and set data.path to their folder"
        ) from None
    if _sha256_uncompressed(part) != sha256:
        part.unlink()
        raise DownloadError(f"{url}: the content does not match its SHA-256 checksum and was discarded; run again")
    part.rename(target)


def _sha256_uncompressed(path: Path) -> str | None:
    try:
        return hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()
    except (OSError, EOFError, zlib.error):
        return None
