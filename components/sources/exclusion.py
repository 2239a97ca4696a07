"""`data.exclude`: a text file of images to leave out, such as suspects that a person confirmed."""

import hashlib
import os
import urllib.parse
from collections.abc import Collection
from dataclasses import replace
from typing import Final

from components.settings import DataSettings
from components.sources.files import DataError
from components.sources.folder import FilesShard
from components.sources.plan import SourcePlan
from images.formats import file_id
from runtime.object_store import as_path

_NAMED: Final = 10
_REMEDY: Final = "correct or remove these lines; each is an image_id of suspects.jsonl, or a path below data.path"


def read_names(path: str) -> frozenset[str]:
    """The lines of the file, without those that are blank or begin with `#`. Raises DataError if it cannot be read."""
    file = as_path(path)
    try:
        with file.open("rb") as stream:
            text = stream.read().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"data.exclude: {path}: cannot be read: {reason}; correct the path, or remove it") from None
    lines = (line.strip() for line in text.splitlines())
    return frozenset(line for line in lines if line and not line.startswith("#"))


def without_excluded(plan: SourcePlan, settings: DataSettings) -> SourcePlan:
    """The plan with the identifiers of the images to leave out, which become part of its fingerprint.

    Raises DataError for names that match no image, if the source lists its images by name; `require_all_found` raises
    it for other sources, once they are read.
    """
    names = read_names(settings.exclude) if settings.exclude else frozenset()
    if not names:
        return plan
    shards = [shard for shard in plan.shards if isinstance(shard, FilesShard)]
    if shards:
        names = _identifiers(names, shards, settings)
    return replace(plan, excluded=names, fingerprint=fingerprint_without(plan.fingerprint, names))


def fingerprint_without(fingerprint: str, names: Collection[str]) -> str:
    """The fingerprint of data without these images; the same if there are none."""
    if not names:
        return fingerprint
    listed = "\n".join(sorted(names)).encode("utf-8", "surrogateescape")
    return f"{fingerprint} without {hashlib.blake2b(listed, digest_size=8).hexdigest()}"


def require_all_found(missing: Collection[str], exclude: str | None) -> None:
    """Raise DataError if names in the file match no image."""
    if not missing:
        return
    shown = sorted(missing)[:_NAMED]
    more = f" and {len(missing) - _NAMED:,} more" if len(missing) > _NAMED else ""
    raise DataError(f"data.exclude: {exclude}: no image is named {', '.join(shown)}{more}; {_REMEDY}")


def _identifiers(names: Collection[str], shards: list[FilesShard], settings: DataSettings) -> frozenset[str]:
    """The identifiers of files that are named by identifier, by path below the data folder, or by whole path."""
    folder = shards[0].folder.rstrip("/") + "/"
    given = {name.removeprefix(folder): name for name in names}
    found: dict[str, str] = {}
    for entry in (entry for shard in shards for entry in shard.entries):
        image_id = urllib.parse.quote(os.fsencode(entry.relative_path))
        found |= {given[name]: image_id for name in (entry.relative_path, image_id) if name in given}
    # Pages are known only once their file is read.
    found |= {name: name for name in given.values() if name not in found and file_id(name) != name}
    require_all_found(set(given.values()) - set(found), settings.exclude)
    return frozenset(found.values())
