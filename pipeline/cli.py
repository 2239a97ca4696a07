"""The command line. Nothing heavy is imported until a command needs it."""

import click

from pipeline.commands.calibrate import calibrate
from pipeline.commands.compare import compare
from pipeline.commands.compile import compile_
from pipeline.commands.config import config
from pipeline.commands.doctor import doctor
from pipeline.commands.drift import drift
from pipeline.commands.export import export
from pipeline.commands.init import init
from pipeline.commands.push import push
from pipeline.commands.rehearse import rehearse
from pipeline.commands.report import report
from pipeline.commands.review import review
from pipeline.commands.run import run
from pipeline.commands.runs import runs
from pipeline.commands.schedule import schedule
from pipeline.commands.score import score
from pipeline.commands.serve import serve
from pipeline.commands.submit import submit
from pipeline.commands.watch import watch
from pipeline.commands.worker import worker


def _hyphenated(name: str) -> str:
    """TensorFlow Serving spells options with underscores, most programs with hyphens: both are accepted everywhere."""
    return name.replace("_", "-")


_CONTEXT = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 110,
    "show_default": True,
    "token_normalize_func": _hyphenated,
}


@click.group(context_settings=_CONTEXT)
@click.version_option(package_name="tfx-image-autoencoder")
def main() -> None:
    """Train, evaluate, push and serve image autoencoders with TensorFlow Extended.

    Exit codes: 0 done; 1 failed; 2 bad usage or configuration (nothing was started); 3 the gate refused the model.
    """


COMMANDS = (
    init, run, runs, report, compare, calibrate, serve, score, watch, review, drift, push, export,
    compile_, rehearse, submit, schedule, worker, config, doctor,
)  # fmt: skip
for command in COMMANDS:
    main.add_command(command)
