"""Whole runs through the command line, as a user starts them, and what they wrote."""

import json

from command_line import REPOSITORY, autoencoder

COMPONENTS = [
    "CuratedSchemaGen",
    "ImageExampleGen",
    "StatisticsGen",
    "ExampleValidator",
    "Transform",
    "Trainer",
    "Calibrator",
    "latest_blessed_model",
    "ModelAnalysis",
    "Evaluator",
    "Pusher",
    "Report",
]
DONE, FAILED, BAD_USAGE, REFUSED = 0, 1, 2, 3


SMALL = ("image.height_px=96", "image.width_px=96")
"""Settings that make runs on photographs quick."""


def run(config, root, *overrides, cwd=REPOSITORY, **variables):
    """(exit code, the --json document) of one run."""
    settings = [argument for override in (f"root={root}", *overrides) for argument in ("--set", override)]
    code, stdout, stderr = autoencoder("run", config, "--json", *settings, cwd=cwd, **variables)
    assert stdout, stderr
    return code, json.loads(stdout)


def states(document):
    return {component["name"]: component["state"] for component in document["components"]}


def names_that(state, document):
    return [name for name, is_in in states(document).items() if is_in == state]


def read_examples(root, split, name="digits"):
    """The features of each example of a split of a run."""
    import tensorflow as tf

    return [tf.train.Example.FromString(record).features.feature for record in records_of(root, split, name)]


def records_of(root, split, name="digits"):
    """The serialized examples of a split of a run, in file order."""
    import tensorflow as tf

    files = sorted(map(str, (root / name / "artifacts/ImageExampleGen/examples").glob(f"*/Split-{split}/*")))
    return [record.numpy() for record in tf.data.TFRecordDataset(files)]
