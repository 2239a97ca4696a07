"""Checks that our top-level packages are our own: some of their names are also used by other distributions.

Imports only the standard library, since every other package may be another distribution's.
"""

import hashlib
import importlib.util
from base64 import urlsafe_b64encode
from pathlib import Path

DISTRIBUTION = "tfx-image-autoencoder"
PACKAGES = ("schema", "runtime", "images", "components", "trainer", "serving", "pipeline")
REMEDY = f"install {DISTRIBUTION} in a virtual environment of its own: python3 -m venv ENV"
_ROOT = Path(__file__).absolute().parent.parent


def collision() -> str:
    """Which package would be imported from another distribution, and from which; empty if there is none."""
    recorded = _recorded_digests()
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        file = _ROOT / package / "__init__.py"
        found = Path(spec.origin) if spec and spec.origin else None
        if not found or not found.samefile(file) or recorded.get(package, "") not in ("", _digest(file)):
            owners = other_owners(package) or "no installed distribution"
            return f"the package '{package}' ({found}) belongs to {owners}, not to {DISTRIBUTION}"
    return ""


def other_owners(package: str) -> str:
    """The other distributions that install this package, with their versions; empty if there are none."""
    from importlib.metadata import packages_distributions, version

    owners = sorted({*packages_distributions().get(package, [])} - {DISTRIBUTION})
    return " and ".join(f"{owner} {version(owner)}" for owner in owners)


def _recorded_digests() -> dict[str, str]:
    """Package -> digest of its `__init__.py` as pip installed it; {} for a source checkout."""
    records = list(_ROOT.glob(f"{DISTRIBUTION.replace('-', '_')}-*.dist-info/RECORD"))
    lines = [line.split(",") for record in records for line in record.read_text(encoding="utf-8").splitlines()]
    return {name.removesuffix("/__init__.py"): digest for name, digest, *_ in lines if name.count("/") == 1}


def _digest(file: Path) -> str:
    digest = hashlib.sha256(file.read_bytes()).digest()
    return f"sha256={urlsafe_b64encode(digest).rstrip(b'=').decode()}"
