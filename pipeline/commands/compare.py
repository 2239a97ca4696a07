"""`autoencoder compare`: trains several families on the same images and ranks them."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.commands.options import config_argument, json_option, set_option
from pipeline.errors import Command, interrupt_on_signals
from runtime.did_you_mean import did_you_mean
from runtime.errors import DONE, FAILED, REFUSED

if TYPE_CHECKING:
    from pipeline.local.compare import Entry


def _chosen(_: click.Context, __: click.Parameter, presets: str | None) -> list[str]:
    from trainer.settings.families import FAMILY_SETTINGS

    known = list(FAMILY_SETTINGS)
    chosen = [preset.strip() for preset in presets.split(",")] if presets else known
    for preset in chosen:
        if preset not in known:
            raise click.BadParameter(f"{preset!r} is none of {', '.join(known)}{did_you_mean(preset, known)}")
    return chosen


@click.command(cls=Command)
@config_argument
@click.option(
    "--presets", callback=_chosen, metavar="dense,residual,...", help="Families, separated by commas; default: all."
)
@click.option("--latent-dim", type=click.IntRange(min=1), help="Size of every family's latent.")
@click.option("--epochs", type=click.IntRange(min=1), help="Epochs of every family.")
@click.option("--push-best", is_flag=True, help="Push the best blessed model to where runs of CONFIG push theirs.")
@set_option
@json_option
def compare(
    config: Path,
    presets: list[str],
    latent_dim: int | None,
    epochs: int | None,
    push_best: bool,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Train several families on CONFIG's images and rank them.

    Each family takes its loss and layers from its preset, and everything else from CONFIG. If CONFIG does not set
    batch size or epochs, the number of images determines them. The runs are kept and cached in
    `<root>/<name>-compare`. They are ranked by AUROC, of labelled anomalies if there are any, otherwise of faint
    synthetic defects in normal images, with its 95 % confidence interval.

    Example: autoencoder compare configs/mnist-deep.yaml --presets deep,residual,variational --epochs 5
    """
    for field, value in (("latent_dim", latent_dim), ("epochs", epochs)):
        if value is not None:
            overrides = (*overrides, f"trainer.{field}={value}")
    from pipeline.local import compare as comparison

    interrupt_on_signals()
    entries = []
    for entry in comparison.compare(config, overrides, presets):
        entries.append(entry)
        click.echo(f"{entry.preset}: {entry.error or f'mean error {entry.mean_error:.5f}'}", err=True)
    ranking = comparison.ranked(entries)
    best = next((entry for entry in ranking if entry.blessed), None)
    pushed = comparison.push_best(config, overrides, best.preset) if push_best and best else None
    if as_json:
        click.echo(json.dumps({"ranking": [dataclasses.asdict(e) for e in ranking], "pushed": pushed}, indent=2))
    else:
        _print_table(ranking, pushed)
    if push_best and not pushed:
        sys.exit(REFUSED)
    sys.exit(FAILED if all(entry.error for entry in ranking) else DONE)


def _print_table(ranking: list["Entry"], pushed: str | None) -> None:
    from pipeline.local.compare import rivals
    from pipeline.terminal import plain_console, plain_table

    numeric = ("mean error", "of PCA's", "AUROC", "synthetic", "parameters", "training s", "images/s")
    table = plain_table(("family", *numeric, "verdict"), right=numeric)
    for e in ranking:
        numbers = (
            (e.mean_error, ".5f"), (e.pca_ratio, ".2f"), (e.auroc, ".3f"), (e.synthetic_auroc, ".3f"),
            (e.parameters, ",d"), (e.training_s, ".1f"),
            (e.images_per_s, ",.0f"),
        )  # fmt: skip
        interval = "" if e.interval is None else f" ({e.interval[0]:.3f} to {e.interval[1]:.3f})"
        cells = ["" if value is None else format(value, style) for value, style in numbers]
        cells[2 if e.auroc is not None else 3] += interval
        verdict = e.error or ("blessed" if e.blessed else "refused")
        table.add_row(e.preset, *cells, verdict, style="red" if e.error else None)
    console = plain_console()
    console.print(table)
    if close := rivals(ranking):
        console.print(f"\nuncertain: with so few test images, {', '.join(close)} may be as good as {ranking[0].preset}")
    if pushed:
        console.print(f"\npushed: {pushed}")
