"""Where images come from: each source has its file, `source_<name>.py`, and is planned here. No Beam, no TFX."""

from components import downloads
from components.object_store import as_path
from components.settings import DataSettings
from components.source_csv import plan_csv
from components.source_digits import plan_digits
from components.source_folder import plan_folder
from components.source_idx import plan_idx
from components.source_numpy import plan_numpy
from components.source_plan import DataError, Reject, Shard, SourceImage, SourcePlan
from components.source_tfrecord import plan_tfrecord

__all__ = ["DataError", "Reject", "Shard", "SourceImage", "SourcePlan", "plan_source"]

_PLANNERS = {
    "digits": plan_digits,
    "folder": plan_folder,
    "csv": plan_csv,
    "numpy": plan_numpy,
    "tfrecord": plan_tfrecord,
}


def plan_source(settings: DataSettings) -> SourcePlan:
    """List the images without decoding them.

    Raises DataError for data that are missing, empty or malformed as a whole, and DownloadError where a download
    fails; an image that turns out to be unreadable is a Reject when its shard is read.
    """
    try:
        if planner := _PLANNERS.get(settings.source):
            return planner(settings)
        return plan_idx(as_path(settings.path or str(downloads.fetch(settings.source))), settings)
    except OSError as error:  # a folder on the way that may not be searched, a disk that fails
        raise DataError(f"{error.filename or settings.path}: cannot be read: {error.strerror or error}") from None
