"""Every line of the server's log is JSON, also what image libraries write."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from image_files import encode, tiff
from PIL import Image

PROGRAM = """
import os, sys, warnings
from serving.server.logs import log_event, log_to, redirect_standard_error
redirect_standard_error()
log_to(sys.stderr)
log_event("serving", model="a")
from images.decoding import UnreadableImageError, shown
for name in sys.argv[1:]:
    try:
        shown(open(name, "rb").read())
    except UnreadableImageError:
        pass
os.write(2, b"half a line")
os.write(2, b" of C\\n\\xff{not json}\\n[1]\\n")
warnings.warn("from Python")
os.abort()
"""


def test_every_line_is_json_even_after_a_crash(tmp_path: Path) -> None:
    """Damaged compressed TIFFs make libtiff write to standard error."""
    pixels = np.arange(4096, dtype=np.uint8).reshape(64, 64)
    for number, compression in enumerate(("tiff_lzw", "tiff_adobe_deflate", "packbits")):
        content = bytearray(encode(Image.fromarray(pixels), "TIFF", compression=compression))
        content[200:260] = b"\xff" * 60
        (tmp_path / f"{number}.tif").write_bytes(content)
    (tmp_path / "3.tif").write_bytes(tiff(pixels, tags=[(259, "H", 5)]))
    files = sorted(map(str, tmp_path.iterdir()))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run([sys.executable, "-c", PROGRAM, *files], capture_output=True, env=environment, check=False)
    assert ran.stdout == b""
    lines = [json.loads(line) for line in ran.stderr.decode().splitlines()]
    assert all(isinstance(line, dict) and {"time", "level", "event"} <= line.keys() for line in lines)
    assert lines[0] == {**lines[0], "event": "serving", "model": "a"}
    messages = [line["message"] for line in lines[1:]]
    assert {"half a line of C", "\ufffd{not json}", "[1]"} <= set(messages)
    assert any("from Python" in message for message in messages)
    assert any("LZW" in message for message in messages)


def test_text_on_a_terminal_cannot_control_it() -> None:
    terminal, end = os.openpty()
    program = "from serving.server.logs import log_event, log_to; log_to(); log_event('watched', file='\\x1b[2J.png')"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], stderr=end, env=environment, check=True)
    os.close(end)
    assert os.read(terminal, 1000).decode().strip() == "watched file=%1B[2J.png"
    os.close(terminal)
