"""Drives Chromium through the W3C WebDriver protocol: real keys, clicks and screen sizes, without another package."""

import base64
import json
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ports import free_port
from waiting import wait_until

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The key of an element's reference, a constant of the standard."""
ARROWS = {"left": "\ue012", "right": "\ue014"}


class Page:
    """One window with a profile of its own, as of one person."""

    def __init__(self, server: str, session: str) -> None:
        self._server, self._session = server, session

    def open(self, address: str) -> None:
        self._ask("POST", "url", {"url": address})

    def run(self, script: str) -> Any:
        """What the script returns."""
        return self._ask("POST", "execute/sync", {"script": script, "args": []})

    def text(self, selector: str) -> str:
        return str(self.run(f"return document.querySelector({json.dumps(selector)}).innerText"))

    def click(self, selector: str) -> None:
        self._ask("POST", f"element/{self._found(selector)}/click", {})

    def type(self, selector: str, text: str) -> None:
        self._ask("POST", f"element/{self._found(selector)}/value", {"text": text})

    def press(self, *keys: str) -> None:
        """Press keys one after the other, wherever the focus is."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._ask("POST", "actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def screenshot(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self._ask("GET", "screenshot")))

    def wait_for(self, script: str) -> None:
        """Wait until the expression is true."""
        wait_until(lambda: self.run(f"return Boolean({script})"), timeout_s=30)

    def _found(self, selector: str) -> str:
        return str(self._ask("POST", "element", {"using": "css selector", "value": selector})[_ELEMENT])

    def _ask(self, method: str, path: str, document: dict[str, Any] | None = None) -> Any:
        return _ask(self._server, method, f"/session/{self._session}/{path}", document)


@contextmanager
def browsers(folder: Path) -> Iterator[Any]:
    """A function that opens a Page (width, height in pixels); skips the test where there is no ChromeDriver."""
    program, browser = shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("google-chrome")
    if program is None or browser is None:
        pytest.skip("needs Chromium and ChromeDriver; Debian's packages are chromium and chromium-driver")
    port, sessions = free_port(), []
    server = f"http://127.0.0.1:{port}"
    driver = subprocess.Popen([program, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def open_page(width_px: int = 1100, height_px: int = 900) -> Page:
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        flags += [f"--user-data-dir={folder / f'profile{len(sessions)}'}"]
        screen = {"deviceMetrics": {"width": width_px, "height": height_px, "pixelRatio": 1.0}}
        options = {"binary": browser, "args": flags, "mobileEmulation": screen}
        asked = {"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}}
        sessions.append(_ask(server, "POST", "/session", asked)["sessionId"])
        return Page(server, sessions[-1])

    try:
        wait_until(lambda: _answers(server), timeout_s=30)
        yield open_page
    finally:
        for session in sessions:
            _ask(server, "DELETE", f"/session/{session}")
        driver.terminate()
        driver.wait(30)


def _answers(server: str) -> bool:
    try:
        return bool(_ask(server, "GET", "/status")["ready"])
    except OSError:
        return False


def _ask(server: str, method: str, path: str, document: dict[str, Any] | None = None) -> Any:
    data = None if document is None else json.dumps(document).encode()
    request = urllib.request.Request(server + path, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=90) as response:
            return json.loads(response.read())["value"]
    except urllib.error.HTTPError as error:
        value = json.loads(error.read())["value"]
        raise AssertionError(f"{value['error']}: {value['message']}") from None
