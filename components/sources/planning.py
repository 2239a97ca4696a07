"""Where images come from: each source has its file, `source_<name>.py`, and is planned here. No Beam, no TFX."""

from components.settings import DataSettings
from components.sources import downloads
from components.sources.csv_manifest import plan_csv
from components.sources.digits import plan_digits
from components.sources.folder import plan_folder
from components.sources.idx import plan_idx
from components.sources.numpy_arrays import plan_numpy
from components.sources.plan import DataError, Reject, Shard, SourceImage, SourcePlan
from components.sources.tfrecord import plan_tfrecord
from runtime.object_store import as_path

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
