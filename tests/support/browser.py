"""Shows pages in a browser without a window, if one is installed."""

import shutil
import subprocess
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def browse(page: Path, profile: Path) -> tuple[str, list[str]]:
    """(DOM, messages of the console) of a page once its scripts have run; skips the test without a browser."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser found; install one of {', '.join(BROWSERS)}")
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
    flags += ["--enable-logging=stderr", "--v=0", "--virtual-time-budget=3000", "--dump-dom"]
    ran = subprocess.run([browser, *flags, page.as_uri()], capture_output=True, text=True, timeout=120)
    return ran.stdout, [line for line in ran.stderr.splitlines() if "CONSOLE" in line]
