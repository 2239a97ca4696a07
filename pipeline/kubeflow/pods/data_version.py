"""Computes the version of the data, in the first task of every run.

The task is never cached, and its result is part of ImageExampleGen's cache key: unchanged data are not read again, and
changed data re-run everything.
"""

import json
from pathlib import Path

import click

from components.settings import DataSettings
from components.sources.downloads import SHA256_UNCOMPRESSED
from components.sources.exclusion import fingerprint_without, read_names
from components.sources.registry import NAMED_VERSION, plan_source
from components.sources.reviewed import fingerprint_with, reviewed_plan
from images.reading import EIGHT_BITS, Reading


def data_version(settings: DataSettings, named_version: str, reading: Reading = EIGHT_BITS) -> str:
    """The version that the run names, or else a fingerprint of the current files.

    Either way it covers what data.exclude and data.reviewed make of the data.
    """
    is_download = settings.path is None and settings.source in SHA256_UNCOMPRESSED
    if not named_version and not is_download:
        return plan_source(settings, reading).fingerprint
    # The content of a download never changes, but it has a new modification time each time.
    excluded = read_names(settings.exclude) if settings.exclude else frozenset()
    version = fingerprint_without(NAMED_VERSION + (named_version or settings.source), excluded)
    return fingerprint_with(version, reviewed_plan(settings, reading))


@click.command()
@click.option("--settings", required=True, help="The configuration's data section as JSON.")
@click.option("--reading", required=True, help="How the configuration reads images, as JSON.")
@click.option("--data-root", default="", help="Replaces data.path.")
@click.option("--data-version", "named_version", default="", help="Replaces the fingerprint.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="File to write the version to.")
def main(settings: str, reading: str, data_root: str, named_version: str, output: Path) -> None:
    """Write the version of the data to a file that Kubeflow reads."""
    values = json.loads(settings)
    if data_root:
        values["path"] = data_root
    version = data_version(DataSettings.model_validate(values), named_version, Reading.model_validate_json(reading))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(version, encoding="utf-8")
    click.echo(f"data version: {version}")


if __name__ == "__main__":
    main()
