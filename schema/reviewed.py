"""What the review of images and the pipeline that learns from it share."""

from typing import Final

REVIEW_FOLDER: Final = "review"
"""In a run's folder: the decisions about its images."""
MANIFEST_FILE: Final = "reviewed.csv"
REVIEWED: Final = "reviewed"
"""In the counts of ImageExampleGen: images of `data.reviewed`, which their splits count, too."""
REPLACED: Final = "replaced"
"""Likewise: images of the data that are among the reviewed ones."""
THIS_MODEL: Final = "this_model"
LAST_MODEL: Final = "last_model"
"""In the Evaluator's report: what the new model and the one before it make of the reviewed images."""
REVIEWED_PREFIX: Final = "reviewed:"
"""How the identifier of an image begins that comes from `data.reviewed`; a quoted path never does."""
