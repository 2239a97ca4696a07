"""`csv`: a manifest that lists image files with optional label, split, normality, masks and group."""

import csv
import io
import itertools
import os.path
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from components.settings import DataSettings
from components.sources.files import DataError, require_file
from components.sources.folder import FileEntry, plan_entries
from components.sources.plan import SPLIT_OF_NAME, SourcePlan
from images.reading import EIGHT_BITS, Reading
from runtime.did_you_mean import did_you_mean
from runtime.object_store import AnyPath, as_path

_PATH, _LABEL, _SPLIT, _IS_ANOMALY = "path", "label", "split", "is_anomaly"
_MASK, _ROI, _GROUP = "mask", "roi", "group"
_COLUMNS: Final = (_PATH, _LABEL, _SPLIT, _IS_ANOMALY, _MASK, _ROI, _GROUP)
_NORMALITY: Final = {"": None, "0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1, "no": 0, "yes": 1}
_NAMES_OF_PATH: Final = ("filename", "file_name", "file", "filepath", "file_path", "image", "image_path")
"""Names that other programs give to the column `path`."""
_DELIMITERS: Final = (",", ";", "\t")
_WINDOWS_DRIVE: Final = re.compile(r"[A-Za-z]:[\\/]|\\\\")


def plan_csv(settings: DataSettings, reading: Reading = EIGHT_BITS) -> SourcePlan:
    """The files listed in the manifest data.path, in its order; their paths are relative to the manifest.

    The header must name a column `path` and may name `label`, `split` (train, eval or val, test, or empty),
    `is_anomaly` (0 or false, 1 or true, or empty), `mask` and `roi` (paths, or empty) and `group` (the variant of the
    product); other columns are ignored. UTF-8, RFC 4180, or with semicolons or tabs instead of commas; a backslash in a
    path separates folders.

    Raises DataError, with the line, for a malformed manifest, a path that leads outside its folder, a path that is
    listed twice, and a region of interest that the reading would ignore.
    """
    manifest = as_path(settings.path or "")
    require_file(manifest, kind="the CSV manifest")
    entries = []
    line_of_path: dict[str, int] = {}
    for line, row in _rows(manifest):
        entry = _entry(f"{manifest}: line {line}", row)
        if entry.roi_path and reading.alpha != "roi":
            raise DataError(
                f"{manifest}: line {line} gives a region of interest, {entry.roi_path}, but image.alpha is "
                f"{reading.alpha}; set image.alpha: roi, or rename the column {_ROI!r} to have it ignored"
            )
        first_line = line_of_path.setdefault(entry.relative_path, line)
        if first_line != line:
            raise DataError(f"{manifest}: lines {first_line} and {line} both list {entry.relative_path}; remove one")
        entries.append(entry)
    if not entries:
        raise DataError(f"{manifest}: lists no images; add a line for each image below the header")
    kept = tuple(entries[: settings.max_images])
    return plan_entries(manifest.parent, kept, settings, reading, listed_in=manifest.name)


def _rows(manifest: AnyPath) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, value of each column) of every row that is not blank."""
    try:
        with io.TextIOWrapper(manifest.open("rb"), encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            delimiter = max(_DELIMITERS, key=first.count)
            reader = csv.reader(itertools.chain([first], file), strict=True, delimiter=delimiter)
            header = _with_path([name.strip().lower() for name in next(reader, [])])
            _check_header(manifest, header)
            for fields in reader:
                if not any(fields):
                    continue
                if len(fields) != len(header):
                    raise DataError(
                        f"{manifest}: line {reader.line_num} has {len(fields)} fields, the header {len(header)}; "
                        "quote fields that contain commas"
                    )
                yield reader.line_num, dict(zip(header, fields, strict=True))
    except UnicodeDecodeError as error:
        raise DataError(f"{manifest}: not UTF-8 ({error.reason}); save it as UTF-8") from None
    except csv.Error as error:
        raise DataError(f"{manifest}: line {reader.line_num} is not valid CSV: {error}; correct it") from None
    except OSError as error:
        raise DataError(f"{manifest}: cannot be read: {error.strerror or error}") from None


def _with_path(header: list[str]) -> list[str]:
    """The header with the column `path`, which may have another usual name."""
    given = next((name for name in _NAMES_OF_PATH if name in header), None)
    return header if _PATH in header or given is None else [_PATH if name == given else name for name in header]


def _check_header(manifest: AnyPath, header: list[str]) -> None:
    if _PATH not in header:
        found = ", ".join(header) or "nothing"
        raise DataError(f"{manifest}: the first line must name the column 'path'; found {found}")
    repeated = next((name for name in _COLUMNS if header.count(name) > 1), None)
    if repeated:
        raise DataError(f"{manifest}: the first line names the column {repeated!r} twice; remove one")
    for name in set(header) - set(_COLUMNS):
        hint = did_you_mean(name, set(_COLUMNS) - set(header), similarity=0.8)
        if hint:
            raise DataError(f"{manifest}: unknown column {name!r}{hint}")


def _entry(where: str, row: dict[str, str]) -> FileEntry:
    """`where` is the manifest and line number for messages."""
    split, normality = row.get(_SPLIT, "").strip(), row.get(_IS_ANOMALY, "").strip().lower()
    path, mask, roi = _relative_path(where, row[_PATH]), row.get(_MASK, ""), row.get(_ROI, "")
    if split and split.lower() not in SPLIT_OF_NAME:
        raise DataError(f"{where}: unknown split {split!r}; use {', '.join(SPLIT_OF_NAME)}, or leave it empty")
    if normality not in _NORMALITY:
        raise DataError(f"{where}: unknown is_anomaly {normality!r}; use 0 or false, 1 or true, or leave it empty")
    return FileEntry(
        relative_path=path,
        label=row.get(_LABEL, "").strip(),
        named_split=SPLIT_OF_NAME[split.lower()] if split else None,
        is_anomaly=_NORMALITY[normality],
        mask_path=_relative_path(where, mask) if mask.strip() else None,
        roi_path=_relative_path(where, roi) if roi.strip() else None,
        group=row.get(_GROUP, "").strip(),
    )


def _relative_path(where: str, given: str) -> str:
    path = given.strip()
    if not path or "\0" in path:
        raise DataError(f"{where}: has no valid path; give one relative to the manifest")
    if Path(path).is_absolute() or _WINDOWS_DRIVE.match(path):
        raise DataError(
            f"{where}: {path} is absolute; make it relative to the manifest, so that images keep their identifiers "
            "and splits on every machine"
        )
    normalised = os.path.normpath(path.replace("\\", "/"))
    if Path(normalised).parts[:1] == ("..",):
        raise DataError(f"{where}: {path} is outside the manifest's folder; move the file into it, or the manifest up")
    return normalised
