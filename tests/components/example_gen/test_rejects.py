"""Over thirty kinds of bad files among a thousand good ones: each is listed with a reason, and none stops the run."""

import bz2
import gzip
import io
import json
import os
import struct
import zlib
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image
from tfx.types import standard_artifacts

from components.example_gen.component import EXAMPLES_KEY, ImageExampleGenExecutor
from components.settings import DataSettings
from components.sources.files import DataError
from components.sources.registry import plan_source
from runtime.tfrecords import read_counts

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (40, 50, 3), dtype=np.uint8)


def encoded(kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_that_claims(width_px, height_px, *, bits=8, colour=0, data=b""):
    header = struct.pack(">IIBBBBB", width_px, height_px, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


PNG, JPEG = encoded("PNG"), encoded("JPEG")
BAD_CONTENT = {
    "empty.png": (b"", "empty file"),
    "empty.jpg": (b"", "empty file"),
    "text.png": (b"not a picture", "not an image in a supported format"),
    "page.jpg": (b"<html><body>404 Not Found</body></html>", "not an image in a supported format"),
    "drawing.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image in a supported format"),
    "program.bmp": (b"\x7fELF" + bytes(200), "not an image in a supported format"),
    "archive.png": (b"PK\x03\x04" + bytes(200), "not an image in a supported format"),
    "document.tif": (b"%PDF-1.7\n" + bytes(200), "not an image in a supported format"),
    "zipped.png": (gzip.compress(PNG), "not an image in a supported format"),
    "packed.jpg": (bz2.compress(JPEG), "not an image in a supported format"),
    "zeros.png": (bytes(5000), "not an image in a supported format"),
    "noise.gif": (RANDOM.bytes(5000), "not an image in a supported format"),
    "signature.png": (PNG[:8], "cannot be decoded: its header is damaged"),
    "one byte.jpg": (JPEG[:1], "not an image in a supported format"),
    "byte order mark.png": (b"\xef\xbb\xbf" + PNG, "not an image in a supported format"),
    "newlines.png": (PNG.replace(b"\r\n", b"\n", 1), "not an image in a supported format"),
    "no pixels.png": (png_that_claims(0, 0), ""),
    "half.png": (PNG[: len(PNG) // 2], "cannot be decoded"),
    "half.jpg": (JPEG[: len(JPEG) // 2], "cannot be decoded"),
    "half.gif": (encoded("GIF")[:900], "cannot be decoded"),
    "half.bmp": (encoded("BMP")[:900], "cannot be decoded"),
    "half.tif": (encoded("TIFF")[:900], ""),
    "half.webp": (encoded("WEBP", lossless=True)[:900], "cannot be decoded"),
    "checksum.png": (PNG[:-20] + bytes([PNG[-20] ^ 1]) + PNG[-19:], "cannot be decoded"),
    "bomb.png": (png_that_claims(60_000, 60_000), "more than 100,000,000"),
    "claim.png": (png_that_claims(20_000, 6_000), "20000x6000 pixels, more than 100,000,000"),
    "short.png": (png_that_claims(50, 40, data=bytes(99)), "cannot be decoded"),
    "Спорченный.png": (b"text", "not an image in a supported format"),
    "壊れた 画像.jpg": (b"text", "not an image in a supported format"),
    "تالف\u202e.png": (b"text", "not an image in a supported format"),
}
BAD_LINKS = {
    "dangling.png": ("nowhere.png", "cannot be opened: No such file or directory"),
    "loop.png": ("loop.png", "cannot be opened: Too many levels of symbolic links"),
}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for row in range(1000):
        pixels = RANDOM.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"good {row:04d}.png")
    for name, (content, _) in BAD_CONTENT.items():
        (folder / name).write_bytes(content)
    return folder


def generate(folder, settings):
    """Runs the executor; returns the counts and the reason of each reject."""
    examples = standard_artifacts.Examples()
    examples.uri = str(folder)
    fingerprint = plan_source(settings).fingerprint
    properties = {"settings": settings.model_dump_json(), "reading": "{}", "data_fingerprint": fingerprint}
    ImageExampleGenExecutor().Do({}, {EXAMPLES_KEY: [examples]}, properties)
    rejects = [json.loads(line) for line in (folder / "rejects.jsonl").read_text().splitlines()]
    return read_counts(str(folder)), {unquote(reject["image_id"]): reject["reason"] for reject in rejects}


def test_every_bad_file_is_listed_with_its_reason(folder, tmp_path):
    for name, (target, _) in BAD_LINKS.items():
        (folder / name).symlink_to(target)
    os.mkfifo(folder / "pipe.png")
    with (folder / "huge.png").open("wb") as file:
        file.truncate(2**30 + 1)  # sparse
    (folder / os.fsdecode(b"not UTF-8 \xff.png")).write_bytes(b"text")
    counts, found = generate(tmp_path / "examples", DataSettings(source="folder", path=str(folder)))
    assert counts["train"] + counts["eval"] + counts["test"] == 1000
    expected = {name: reason for name, (_, reason) in {**BAD_CONTENT, **BAD_LINKS}.items()} | {
        "pipe.png": "not a regular file",
        "huge.png": "1,073,741,825 bytes, more than 1,073,741,824",
        "not UTF-8 \ufffd.png": "not an image in a supported format",
    }
    assert {name for name in expected if expected[name] not in found.get(name, "was accepted")} == set()
    assert set(found) == set(expected)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every file")
def test_a_file_without_permission_is_rejected(folder, tmp_path):
    (folder / "good 0000.png").chmod(0)
    _, reasons = generate(tmp_path / "examples", DataSettings(source="folder", path=str(folder)))
    assert reasons["good 0000.png"] == "cannot be opened: Permission denied"


def test_more_rejects_than_allowed_stop_the_run(folder, tmp_path):
    settings = DataSettings(source="folder", path=str(folder), max_reject_fraction=0.02)
    with pytest.raises(DataError, match="30 of 1,0.. images cannot be read, more than data.max_reject_fraction 2%"):
        generate(tmp_path / "examples", settings)
