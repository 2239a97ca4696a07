"""Command-line options that several commands share."""

import click

set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Override a field of the configuration, e.g. --set trainer.epochs=20 (repeatable).",
)
