"""`autoencoder score`: scores image files with a model or a server."""

import contextlib
import csv
import io
import json
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.commands.options import FOLDER, PATH, RUNS
from pipeline.commands.serve import quieten_tensorflow
from pipeline.errors import Command, naming_full_disk
from runtime.errors import DONE, FAILED, UsageError
from runtime.imports import imported_for_good
from schema.features import printable
from schema.signatures import DEFAULT_MODEL_NAME

if TYPE_CHECKING:  # `--help` must not wait for what these import
    from images.reading import Reading
    from serving.client import Login
    from serving.scoring import FileScore, Scorer

TOKEN_VARIABLE = "AUTOENCODER_TOKEN"  # noqa: S105 - its name
_NO_MAPS = (
    "the model has no anomaly maps, because a version without them calibrated it: run the pipeline again, which only "
    "calibrates and evaluates the model, or leave out --overlays, --masks and --coco"
)
_STDOUT = "standard output"
_OVERLAY, _MASK = "overlay", "mask"
MAX_STEM_BYTES = 200
"""Most disks limit a file's name to 255 bytes, and an overlay's name also has a number and a suffix."""


@click.command(cls=Command)
@click.argument("images", nargs=-1, required=True)
@click.option(
    "--model",
    type=click.Path(exists=True, path_type=Path),
    help="A run's folder, a serving folder, a SavedModel or an exported file (.onnx, .tflite, .xml); by default the "
    "model pushed last below runs/.",
)
@click.option("--server", help="Use a server instead: http://host:8501 or grpc://host:8500.")
@click.option("--model_name", default=DEFAULT_MODEL_NAME, help="The model's name on the server.")
@click.option("--token-file", type=PATH, help=f"File with the server's token (default: {TOKEN_VARIABLE}).")
@click.option("--ca-file", type=PATH, help="PEM file with the certificates to trust for https:// and grpcs://.")
@click.option(
    "--format", "form", type=click.Choice(["table", "csv", "jsonl"]), default="table", help="Format of the output."
)
@click.option("--overlays", type=FOLDER, help="Write each image with its regions and anomaly map into this folder.")
@click.option("--masks", type=FOLDER, help="Write each image's anomalous pixels as a PNG mask into this folder.")
@click.option("--coco", type=PATH, help="Write the regions as COCO instances, for labelling tools, to this file.")
@click.option("--runner", help="Score on Beam, for more images than one machine handles: FlinkRunner, ...")
@click.option("--output", metavar="PREFIX", help="With --runner: write JSON Lines to PREFIX-00000-of-00001.jsonl ...")
@click.option("--beam-arg", "beam_args", multiple=True, metavar="--NAME=VALUE", help="An option for Beam (repeatable).")
def score(
    images: tuple[str, ...],
    model: Path | None,
    server: str | None,
    model_name: str,
    token_file: Path | None,
    ca_file: Path | None,
    form: str,
    overlays: Path | None,
    masks: Path | None,
    coco: Path | None,
    runner: str | None,
    output: str | None,
    beam_args: tuple[str, ...],
) -> None:
    """Score image files.

    A score says how much an image differs from the images that the model was trained on. IMAGES are files, folders
    (searched recursively) or patterns such as 'parts/*.png'. Results go to standard output, one line per file; with
    --format csv or jsonl they list the regions in which an image is anomalous, in pixels of the image. Files whose
    images cannot be scored are reported and skipped. The exit code is 1 only if the server or every file failed.
    """
    if model is not None and server is not None:
        raise UsageError("--model and --server exclude each other")
    if runner is not None:
        if model is not None and model.is_file():
            raise UsageError(f"--model {model}: --runner needs a SavedModel; give the run's folder")
        if output is None or form != "table" or any((server, overlays, masks, coco)):
            raise UsageError("--runner needs --output, and excludes --server, --overlays, --masks, --coco and --format")
        sys.exit(_score_on_beam(images, model, output, [f"--runner={runner}", *beam_args]))
    if output is not None or beam_args:
        raise UsageError("--output and --beam-arg work only with --runner")
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may not be valid text
        sys.stdout.reconfigure(errors="backslashreplace")
    from serving.errors import ServingError
    from serving.image_files import common_folder, image_files
    from serving.scoring import ROW_COLUMNS, lacks_maps, score_files, with_maps_if_possible, with_maps_of_alarms

    paths = list(image_files(images))
    login = _login(token_file, ca_file)
    scorer_of = _scorer_of(model, server, model_name, login)
    needs_maps = any((overlays, masks, coco))
    # A model on this machine has the maps at hand.
    add_maps = with_maps_of_alarms if form == "table" and server else with_maps_if_possible
    scorer = scorer_of(with_maps=True) if needs_maps else add_maps(scorer_of)
    scored = score_files(paths, scorer, reading=_reading_of(model, server))
    try:
        with contextlib.closing(_with_progress(scored, len(paths))) as results:
            pictures = _Pictures(overlays, masks, coco, folder=common_folder(images))
            total, failed = _write_results(pictures.written_for(results), form, (*ROW_COLUMNS, *pictures.columns))
    except ServingError as error:
        raise (UsageError(_NO_MAPS) if lacks_maps(error) else error) from None
    if failed:
        click.echo(f"{failed} of {total} images could not be scored", err=True)
    if failed == total:
        sys.exit(FAILED)


def _score_on_beam(images: tuple[str, ...], model: Path | None, output: str, arguments: list[str]) -> int:
    quieten_tensorflow()
    with imported_for_good():
        from serving.beam_scoring import score_on_beam
    from serving.model.versions import newest_base_folder, saved_model_folder

    folder = saved_model_folder(model or newest_base_folder(RUNS)).absolute()
    scored, failed = score_on_beam(images, folder, output, arguments)
    click.echo(f"{scored:,} images scored, {failed:,} could not be: {output}-*.jsonl", err=True)
    return DONE if scored else FAILED


def _login(token_file: Path | None, ca_file: Path | None) -> "Login":
    from serving.client import Login

    if ca_file is not None and not ca_file.is_file():
        raise UsageError(f"--ca-file {ca_file}: no such file")
    if token_file is None:
        return Login(os.environ.get(TOKEN_VARIABLE) or None, ca_file)
    try:
        # The server accepts each of its file's lines.
        return Login(token_file.read_text(encoding="utf-8").split()[0], ca_file)
    except (OSError, UnicodeDecodeError, IndexError) as error:
        reason = "is empty" if isinstance(error, IndexError) else f"cannot be read: {error}"
        raise UsageError(f"--token-file {token_file}: {reason}") from None


def _scorer_of(model: Path | None, server: str | None, model_name: str, login: "Login") -> Callable[..., "Scorer"]:
    """A function that takes `with_maps`."""
    from serving.model.versions import newest_base_folder, saved_model_folder
    from serving.scoring import exported_scorer, local_scorer, server_scorer

    if model is not None and model.is_file():
        return partial(exported_scorer, model)
    quieten_tensorflow()
    if server is not None:
        return partial(server_scorer, server, model_name=model_name, login=login)
    return partial(local_scorer, saved_model_folder(model or newest_base_folder(RUNS)))


def _reading_of(model: Path | None, server: str | None) -> "Reading":
    """How the model reads files; servers and exported models do not tell, and get files of several pages whole."""
    from images.reading import EIGHT_BITS
    from serving.model.image_inputs import reading_of_model
    from serving.model.versions import newest_base_folder, saved_model_folder

    if server is not None or (model is not None and model.is_file()):
        return EIGHT_BITS
    return reading_of_model(saved_model_folder(model or newest_base_folder(RUNS)))


def _with_progress(results: Iterable["FileScore"], total: int) -> Generator["FileScore", None, None]:
    """The same results, with a progress bar on standard error if that is a terminal.

    To be closed: the bar has a thread, which nothing can wait for once Python is about to exit.
    """
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    hidden = not sys.stderr.isatty()
    yield from track(results, "Scoring", total=total, console=console, transient=True, disable=hidden)


@dataclass(frozen=True)
class _Pictures:
    """The overlays, masks and the COCO file that the command line asks for."""

    overlays: Path | None
    masks: Path | None
    coco: Path | None
    folder: Path
    """The COCO file names images relative to it."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Those of the rows that name the pictures of an image."""
        return tuple(name for name, folder in ((_OVERLAY, self.overlays), (_MASK, self.masks)) if folder is not None)

    def written_for(self, results: Iterable["FileScore"]) -> Iterator[tuple["FileScore", dict[str, str | None]]]:
        """Each result with the paths of its pictures by `columns`, None for an image that could not be scored.

        Writes the pictures of an image before they are named, and finally the COCO file.
        """
        from serving.overlays import CocoFile, write_mask, write_overlay

        for folder in (self.overlays, self.masks):
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
        instances = CocoFile()
        for number, result in enumerate(results):
            page = "" if result.page is None else f"-{result.page + 1}"
            name = f"{number:06d}-{_shortened(Path(result.path.name).stem)}{page}.png"
            written: dict[str, str | None] = dict.fromkeys(self.columns)
            if result.score is not None and self.overlays is not None:
                with naming_full_disk(self.overlays / name):
                    write_overlay(result.path, result.score, self.overlays / name, page=result.page)
                written[_OVERLAY] = str(self.overlays / name)
            if result.score is not None and self.masks is not None:
                with naming_full_disk(self.masks / name):
                    write_mask(result.score, self.masks / name)
                written[_MASK] = str(self.masks / name)
            if result.score is not None and self.coco is not None:
                relative = replace(result, path=Path(os.path.relpath(str(result.path), self.folder)))
                instances.add(relative.name, result.score)
            yield result, written
        if self.coco is not None:
            with naming_full_disk(self.coco):
                instances.write(self.coco)


def _shortened(stem: str) -> str:
    """The start of a stem, short enough for the name of an overlay."""
    while len(os.fsencode(stem)) > MAX_STEM_BYTES:
        stem = stem[:-1]
    return stem


def _write_results(
    results: Iterable[tuple["FileScore", dict[str, str | None]]], form: str, columns: Sequence[str]
) -> tuple[int, int]:
    """Write every result as it arrives; returns the number of images, and of those that could not be scored."""
    from serving.scoring import csv_row, row_of

    table = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
    with naming_full_disk(_STDOUT):
        if form == "csv":
            table.writeheader()
        elif form == "table":
            click.echo(f"{'verdict':8} {'score':>10} {'threshold':>10}  path")
    total = failed = 0
    for result, pictures in results:
        total += 1
        failed += result.score is None
        row = row_of(result) | pictures
        with naming_full_disk(_STDOUT):
            if form == "csv":
                table.writerow(csv_row(row))
            else:
                click.echo(json.dumps(row) if form == "jsonl" else _line(row))
    with naming_full_disk(_STDOUT):
        sys.stdout.flush()
    return total, failed


def _line(row: dict[str, Any]) -> str:
    score, threshold = ("-" if row[name] is None else f"{row[name]:.6f}" for name in ("score", "threshold"))
    place = row["strongest"]
    everywhere = (
        place and f"whole image: no single region stands out, strongest at ({int(place['x'])}, {int(place['y'])})"
    )
    told = [row["problem"], everywhere, row["warning"]]
    notes = "; ".join(filter(None, told))
    line = f"{row['verdict']:8} {score:>10} {threshold:>10}  {row['path']}{f'  ({notes})' if notes else ''}"
    return printable(line, kept="")
