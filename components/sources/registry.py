"""Plans the source that the configuration names; each source has a module of its own. No Beam, no TFX."""

from typing import Final

from components.settings import CHANGE_NO_EXAMPLE, DataSettings
from components.sources import downloads
from components.sources.csv_manifest import plan_csv
from components.sources.digits import plan_digits
from components.sources.exclusion import fingerprint_without, without_excluded
from components.sources.files import DataError, SourceFiles
from components.sources.folder import FilesShard, plan_folder
from components.sources.idx import plan_idx
from components.sources.numpy_arrays import plan_numpy
from components.sources.plan import SourcePlan
from components.sources.reviewed import fingerprint_with, with_reviewed
from components.sources.tfrecord import plan_tfrecord
from images.reading import EIGHT_BITS, Reading, reading_of
from runtime.did_you_mean import did_you_mean
from runtime.object_store import as_path

NAMED_VERSION: Final = "named: "
"""Prefix of a fingerprint that names a version of the data instead of identifying its files."""
_LABELS_NAMED: Final = 8
_PLANNERS = {
    "digits": lambda settings, reading: plan_digits(settings),
    "folder": plan_folder,
    "csv": plan_csv,
    "numpy": plan_numpy,
    "tfrecord": plan_tfrecord,
}
_latest: dict[tuple[str, str, str], SourcePlan] = {}
"""The plan that this process made last, so that a local run lists its files only once."""


def plan_source(settings: DataSettings, reading: Reading = EIGHT_BITS) -> SourcePlan:
    """List the images without decoding them.

    Raises DataError for data that is missing, empty or malformed as a whole, and DownloadError if a download fails; an
    image that turns out to be unreadable is a Reject when its shard is read. Shards include the `excluded` images.
    """
    reading = reading_of(reading)
    try:
        if planner := _PLANNERS.get(settings.source):
            plan = planner(settings, reading)
        else:
            plan = plan_idx(as_path(settings.path or str(downloads.fetch(settings.source))), settings)
    except OSError as error:  # a parent folder without permission, a failing disk
        raise DataError(f"{error.filename or settings.path}: cannot be read: {error.strerror or error}") from None
    _require_normal_labels(plan, settings)
    plan = with_reviewed(without_excluded(plan, settings), settings, reading)
    _latest.clear()
    _latest[_key(settings, plan.fingerprint, reading)] = plan
    return plan


def planned_source(settings: DataSettings, fingerprint: str, reading: Reading = EIGHT_BITS) -> SourcePlan:
    """The plan whose fingerprint is part of the cache key: the one made last by this process, or else a new one.

    Raises DataError if the new plan has another fingerprint.
    """
    plan = _latest.pop(_key(settings, fingerprint, reading), None) or plan_source(settings, reading)
    if fingerprint != plan.fingerprint and not fingerprint.startswith(NAMED_VERSION):
        raise DataError(f"{settings.path}: files changed after the run had listed them; start a new run")
    return plan


def require_unchanged(plan: SourcePlan) -> None:
    """Raise DataError if files changed since they were listed: what was read may not be what the fingerprint covers."""
    if plan.files and _fingerprint_now(plan, plan.files) != plan.fingerprint:
        raise DataError(
            f"{plan.files.folder}: files changed while they were being read; run again once they stay the same"
        )


def _require_normal_labels(plan: SourcePlan, settings: DataSettings) -> None:
    """Raise DataError if none of `data.normal_labels` is a class of the files, so that no image would be normal."""
    if not settings.normal_labels:
        return
    labels = {entry.label for shard in plan.shards if isinstance(shard, FilesShard) for entry in shard.entries}
    if not labels or labels & set(settings.normal_labels):
        return
    named, known = ", ".join(map(repr, settings.normal_labels)), sorted(labels)
    hint = did_you_mean(settings.normal_labels[0], known)
    more = f" and {len(known) - _LABELS_NAMED:,} more" if len(known) > _LABELS_NAMED else ""
    raise DataError(
        f"data.normal_labels: no image has the label {named}{hint} (labels: "
        f"{', '.join(map(repr, known[:_LABELS_NAMED]))}{more})"
    )


def _fingerprint_now(plan: SourcePlan, files: SourceFiles) -> str:
    return fingerprint_with(fingerprint_without(files.fingerprint(), plan.excluded), plan.reviewed)


def _key(settings: DataSettings, fingerprint: str, reading: Reading) -> tuple[str, str, str]:
    return settings.model_dump_json(exclude=set(CHANGE_NO_EXAMPLE)), fingerprint, reading_of(reading).model_dump_json()
