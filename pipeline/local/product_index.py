"""The index of a plant's products, beside their folders: a page, its data, and a configuration for the server."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from pipeline.configuration.configuration import Configuration
from runtime.pages import fill_in
from runtime.whole_files import write_whole
from schema.artifacts import REPORT_FILE, THUMBNAILS_FILE
from serving.model.versions import RUN_SUBFOLDER, version_folders

INDEX_FILE: Final = "index.html"
PRODUCTS_FILE: Final = "index.json"
MODELS_FILE: Final = "models.config"
BLESSED, REFUSED, FAILED = "blessed", "refused", "failed"
_WORST_FIRST: Final = (FAILED, REFUSED, BLESSED)
_TEMPLATE: Final = "index.html.jinja"
_LARGEST_SECONDS: Final = 10**11
"""Version numbers above it are microseconds, as in object stores; others are seconds."""
_MODELS_HEADER: Final = f"""\
# The models that `autoencoder serve --model_config_file {MODELS_FILE}` serves. Every run of several products, and every
# later run of one of them, writes this file again: copy it before you change it.
"""

Document = dict[str, Any]


@dataclass(frozen=True)
class Product:
    """A product after its latest run: a row of the table and an entry of the index."""

    name: str
    verdict: str
    """blessed, refused or failed."""
    reason: str
    """Why the model was refused or the run failed, or why a blessed model was not pushed."""
    metrics: dict[str, float]
    images: dict[str, int]
    """Split -> images."""
    seconds: float
    ended: str
    """Date and time, UTC, ISO 8601."""
    folder: str
    destination: str
    """Folder or URI of the versions that servers read."""
    version: int | None
    """The newest version there."""
    drift: dict[str, Any] | None
    """What ExampleValidator found: `since`, the version compared with or None, and `changes` by feature; None if it
    compared nothing."""

    @property
    def can_be_served(self) -> bool:
        """Whether it has a version in a local folder, so that MODELS_FILE lists it."""
        return self.version is not None and "://" not in self.destination

    @property
    def in_service_since(self) -> str | None:
        """When the newest version was pushed, which is its number: UTC, ISO 8601."""
        if self.version is None:
            return None
        seconds = self.version / 1e6 if self.version > _LARGEST_SECONDS else self.version
        return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")


def product_of(configuration: Configuration, document: Document) -> Product:
    """The product after a run, from the run's document."""
    folder = _root(configuration) / configuration.name
    destination = configuration.push.destination or str(folder / RUN_SUBFOLDER)
    return Product(
        name=configuration.name,
        verdict=FAILED if document["error"] else BLESSED if document["blessed"] else REFUSED,
        reason=_reason(document),
        metrics=document["metrics"],
        images=document.get("images", {}),
        seconds=document["seconds"],
        ended=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        folder=str(folder),
        destination=destination,
        version=_newest_version(destination, document),
        drift=document.get("drift"),
    )


def write_indexes(configurations: Iterable[Configuration], products: Sequence[Product]) -> list[Path]:
    """Write the index of every root of the configurations, and return the pages.

    Products of earlier runs stay listed until their folders are removed.
    """
    roots = dict.fromkeys(_root(configuration) for configuration in configurations)
    for root in roots:
        _update(root, [product for product in products if Path(product.folder).parent == root])
    return [root / INDEX_FILE for root in roots]


def models_beside(page: Path, products: Iterable[Product]) -> Path | None:
    """The MODELS_FILE beside an index page, if it lists one of the products."""
    listed = any(product.can_be_served for product in products if Path(product.folder).parent == page.parent)
    return page.with_name(MODELS_FILE) if listed else None


def update_if_listed(configuration: Configuration, document: Document) -> None:
    """Bring the index up to date after a run of a single product, if there is an index that lists it."""
    root = _root(configuration)
    if configuration.name in _read(root):
        _update(root, [product_of(configuration, document)])


def _root(configuration: Configuration) -> Path:
    return Path(configuration.root).expanduser().absolute()


def _reason(document: Document) -> str:
    if document["error"]:
        return str(document["error"])
    refusals = [row["reason"] for row in document["thresholds"] if row["reason"]]
    return "; ".join(refusals) or document["not_pushed_because"] or ""


def _newest_version(destination: str, document: Document) -> int | None:
    if "://" not in destination:
        return next((folder.number for folder in version_folders(Path(destination))), None)
    pushed = (document.get("pushed") or "").rpartition("/")[2]
    return int(pushed) if pushed.isdigit() else None


def _update(root: Path, products: Sequence[Product]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    with _locked(root):
        known = {**_read(root), **{product.name: product for product in products}}
        listed = [known[name] for name in sorted(known)]
        texts = {
            PRODUCTS_FILE: json.dumps([asdict(product) for product in listed], indent=2) + "\n",
            INDEX_FILE: _page(listed),
            MODELS_FILE: _models(listed),
        }
        for name, text in texts.items():
            write_whole(root / name, text.encode("utf-8", "replace"))


def _read(root: Path) -> dict[str, Product]:
    """The listed products whose folders exist, by name; none if there is no list, or one of another version."""
    names = [field.name for field in fields(Product)]
    try:
        rows = json.loads((root / PRODUCTS_FILE).read_text(encoding="utf-8"))
        products = [Product(**{name: row[name] for name in names}) for row in rows]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}
    return {product.name: product for product in products if Path(product.folder).is_dir()}


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    """One run at a time updates the index: several products may run in processes of their own."""
    with (root / f".{PRODUCTS_FILE}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _models(products: Iterable[Product]) -> str:
    """TensorFlow Serving's model_config_list with all products that can be served."""
    entries = [
        f'  config {{ name: "{product.name}" base_path: "{_quoted(os.path.abspath(product.destination))}" '  # noqa: PTH100
        'model_platform: "tensorflow" }\n'
        for product in products
        if product.can_be_served
    ]
    return f"{_MODELS_HEADER}model_config_list {{\n{''.join(entries)}}}\n"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _page(products: Sequence[Product]) -> str:
    """The page; all text in it is escaped."""
    ordered = sorted(products, key=lambda product: (_WORST_FIRST.index(product.verdict), product.name))
    counts = {verdict: sum(p.verdict == verdict for p in products) for verdict in reversed(_WORST_FIRST)}
    return fill_in(__package__, _TEMPLATE, entries=[_entry(product) for product in ordered], counts=counts)


def _entry(product: Product) -> dict[str, Any]:
    folder = Path(product.folder)
    thumbnails = folder / THUMBNAILS_FILE
    return {
        "product": product,
        "report": f"{product.name}/{REPORT_FILE}" if (folder / REPORT_FILE).exists() else None,
        "thumbnails": json.loads(thumbnails.read_text(encoding="utf-8")) if thumbnails.exists() else [],
    }
