"""The command line: the only place that reads arguments. Nothing heavy is imported until a command needs it."""

import sys
from pathlib import Path

import click

from pipeline.commands.calibrate import calibrate
from pipeline.commands.compare import compare
from pipeline.commands.doctor import doctor
from pipeline.commands.drift import drift
from pipeline.commands.exit_codes import exit_with_message
from pipeline.commands.kubeflow import compile_, rehearse, schedule, submit
from pipeline.commands.options import set_option
from pipeline.commands.push import push
from pipeline.commands.report import report
from pipeline.commands.score import score
from pipeline.commands.serve import serve
from pipeline.commands.worker import worker
from runtime.errors import BAD_USAGE


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="tfx-image-autoencoder")
def main() -> None:
    """Train, judge, push and serve image autoencoders with TensorFlow Extended.

    Exit codes: 0 done; 1 failed; 2 bad usage or configuration (nothing was started); 3 the gate refused the model.
    """


@main.command()
@click.argument("config", type=click.Path(path_type=Path), default=Path("configs/digits.yaml"))
@set_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of tables.")
@click.argument("beam_options", nargs=-1, type=click.UNPROCESSED, metavar="[-- BEAM_OPTIONS]")
def run(config: Path, overrides: tuple[str, ...], as_json: bool, beam_options: tuple[str, ...]) -> None:
    """Run the whole pipeline that CONFIG describes (default: configs/digits.yaml).

    What follows `--` goes to Apache Beam, after the configuration's `beam.args`.

    Examples: autoencoder run configs/mnist-dense.yaml --set trainer.epochs=20;
    autoencoder run configs/beam-flink.yaml -- --flink_master=flink:8081 --parallelism=32
    """
    if str(config).startswith("-"):
        raise click.UsageError("name CONFIG before the options for Beam: autoencoder run CONFIG -- OPTIONS")
    if beam_options and not beam_options[0].startswith("-"):
        raise click.UsageError(
            f"unexpected argument '{beam_options[0]}': after CONFIG only `-- BEAM_OPTIONS` may follow"
        )
    with exit_with_message():
        from pipeline.configuration.loading import load_configuration

        configuration = load_configuration(config, overrides)
        configuration = configuration.model_copy(update={"beam": configuration.beam.with_args(beam_options)})
        from pipeline.local.run import run as run_locally

        sys.exit(run_locally(configuration, as_json=as_json))


@main.command()
@click.option("--root", type=click.Path(path_type=Path), default=Path("runs"), help="Folder of the runs.")
@click.option("--config", type=click.Path(path_type=Path), help="A configuration whose `metadata:` names a server.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
def runs(root: Path, config: Path | None, as_json: bool) -> None:
    """List past runs with verdict, error and duration, newest first."""
    from pipeline.commands.runs import print_runs
    from pipeline.configuration.configuration import ConfigurationError
    from pipeline.configuration.loading import load_configuration
    from pipeline.metadata.store import MetadataStoreError

    try:
        print_runs(root, load_configuration(config) if config else None, as_json=as_json)
    except (ConfigurationError, MetadataStoreError) as error:
        click.echo(str(error), err=True)
        sys.exit(BAD_USAGE)


COMMANDS = (report, compare, calibrate, serve, score, drift, push, compile_, rehearse, submit, schedule, doctor, worker)
for command in COMMANDS:
    main.add_command(command)


if __name__ == "__main__":
    main()
