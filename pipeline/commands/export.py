"""`autoencoder export`: exports a run's model for another runtime, and proves that it decides the same there."""

import dataclasses
import json
import os
from pathlib import Path

import click

from pipeline.commands.options import FOLDER, json_option
from pipeline.commands.serve import quieten_tensorflow
from pipeline.errors import Command
from runtime.errors import UsageError
from runtime.imports import imported_for_good

_MEGABYTE = 1e6


@click.command(cls=Command)
@click.argument("run", type=FOLDER)
@click.option("--to", "target", type=click.Choice(["onnx", "litert", "openvino"]), required=True, help="The runtime.")
@click.option("--output", type=FOLDER, required=True, metavar="DIR", help="Write the file and its README here.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "float16", "int8"]),
    default="float32",
    help="How the weights are stored; other than float32, the threshold is recomputed and differences are printed.",
)
@json_option
def export(run: Path, target: str, output: Path, precision: str, as_json: bool) -> None:
    """Export a run's latest blessed model for another runtime.

    Writes one file with the whole decision (pixels in; score, threshold, p-value, map and mask out) and a README with
    an example. The images that are replayed before a push are replayed in the target's own runtime first: in float32,
    nothing is exported if a score differs by more than a ten-thousandth, or a verdict differs. Needs the extra
    `export`: pip install 'tfx-image-autoencoder[export]'.
    """
    quieten_tensorflow()
    from pipeline.terminal import output_to_log

    with output_to_log(Path(os.devnull)):
        from pipeline.commands.push import metadata_of
        from pipeline.metadata.history import examples_of, latest_blessed

        blessed = latest_blessed(metadata_of(run), run.absolute().name)
        if blessed is None:
            raise UsageError(f"{run}: none of its runs has a blessed model to export")
        with imported_for_good():
            from schema.artifacts import PARITY_FILE
            from schema.features import EVAL, TEST
            from serving.exporting.export import export_model

        model, analysis, _ = blessed
        examples = examples_of(metadata_of(run), analysis)
        done = export_model(
            Path(model),
            output,
            target=target,  # type: ignore[arg-type]
            precision=precision,  # type: ignore[arg-type]
            parity=f"{analysis}/{PARITY_FILE}",
            held_out=f"{examples}/Split-{EVAL}/*",
            test=f"{examples}/Split-{TEST}/*",
        )
    found = done.comparison
    if as_json:
        document = {"path": str(done.path), "size_bytes": done.size_bytes, "is_recalibrated": done.is_recalibrated}
        click.echo(json.dumps({**document, **dataclasses.asdict(found)}))
        return
    click.echo(
        f"{done.path} ({done.size_bytes / _MEGABYTE:.1f} MB)\n"
        f"{found.images} images replayed: scores differ by at most {found.worst_difference:.1e} of their value, "
        f"{found.same_verdicts} verdicts are the same, {found.milliseconds:.1f} ms an image "
        f"(SavedModel: {found.served_milliseconds:.1f} ms)"
    )
    if found.auroc:
        click.echo("AUROC {:.4f} in the SavedModel, {:.4f} exported".format(*found.auroc))
    if precision != "float32":
        state = "was recomputed in this precision" if done.is_recalibrated else "is the SavedModel's"
        click.echo(f"The threshold {state}.")
