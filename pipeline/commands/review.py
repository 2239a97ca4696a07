"""`autoencoder review`: shows images that deserve a look, and records what people decide."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.commands.options import FOLDER, PATH, RUNS, run_folder, set_option
from pipeline.commands.serve import quieten_tensorflow
from pipeline.errors import Command
from runtime.imports import imported_for_good
from runtime.keras_flavour import use_keras_2
from schema.reviewed import REVIEW_FOLDER

if TYPE_CHECKING:  # `--help` must not wait for what these import
    from pipeline.local.reviewable import ReviewableRun
    from serving.reviewing.candidates import Candidate
    from serving.reviewing.queue import Item
    from serving.reviewing.review_folder import ReviewFolder

_PORT = 8510
_LIMIT = 500


@click.command(cls=Command)
@click.argument("run", type=PATH, required=False)
@set_option
@click.option("--watch", "states", type=PATH, multiple=True, help="Add what a watch with this state file scored.")
@click.option("--images", "folders", type=FOLDER, multiple=True, help="Add the images in this folder.")
@click.option("--review", "review_folder", type=FOLDER, help="Folder of the decisions (default: review/ in the run's).")
@click.option("--limit", type=click.IntRange(1), default=_LIMIT, help="Images to show, those nearest to the threshold.")
@click.option("--port", type=click.IntRange(0, 65535), default=_PORT, help="Port on 127.0.0.1; 0: any free one.")
@click.option("--open", "in_browser", is_flag=True, help="Open the page in the browser.")
def review(
    run: Path | None,
    overrides: tuple[str, ...],
    states: tuple[Path, ...],
    folders: tuple[Path, ...],
    review_folder: Path | None,
    limit: int,
    port: int,
    in_browser: bool,
) -> None:
    """Decide about images that deserve a look, on a local web page.

    RUN is a run's folder or its configuration; by default, the run below runs/ that was pushed last. The page shows its
    suspects and test images, and what --watch and --images add, the most informative first. Every decision goes
    into reviewed.csv immediately, which the next `autoencoder run` of the same name uses. Ctrl-C ends the review.

    \b
    Examples:
      autoencoder review runs/bottle --open
      autoencoder review bottle.yaml --watch watch/camera.sqlite --images kept/
    """
    from serving.model.versions import newest_base_folder

    folder, store = run_folder(run or newest_base_folder(RUNS).parent, overrides)
    quieten_tensorflow()
    use_keras_2()
    with imported_for_good():
        from pipeline.local.reviewable import reviewable_run
        from pipeline.metadata.store import connection_of, require_run
        from serving.reviewing.review_folder import ReviewFolder

    require_run(store, folder)
    chosen = reviewable_run(connection_of(store, folder), folder)
    decisions = ReviewFolder(review_folder or folder / REVIEW_FOLDER)
    with tempfile.TemporaryDirectory(prefix="autoencoder-review-") as waiting:
        items = _queue(chosen, decisions, states, folders, Path(waiting), limit)
        if not items:
            click.echo("There is nothing to review.")
            return
        setting = f" with --set data.reviewed={decisions.manifest}" if review_folder else ""
        step = f"The next `autoencoder run`{setting} uses the decisions; Ctrl-C ends this review."
        _serve(items, decisions, folder.name, step, port, Path(waiting) if in_browser else None)
    made = decisions.standing().values()
    counts = {kind: sum(of_image[-1].decision == kind for of_image in made) for kind in ("normal", "defect", "unsure")}
    click.echo(", ".join(f"{count:,} {kind}" for kind, count in counts.items()) + f": {decisions.manifest}")


def _queue(
    chosen: "ReviewableRun",
    decisions: "ReviewFolder",
    states: tuple[Path, ...],
    folders: tuple[Path, ...],
    waiting: Path,
    limit: int,
) -> "list[Item]":
    import tensorflow as tf
    from rich.console import Console

    from serving.model.prediction import Predictor
    from serving.reviewing import candidates
    from serving.reviewing.queue import ReviewQueue

    tf.get_logger().setLevel("ERROR")
    standing = decisions.standing()

    def found() -> "Iterator[Candidate]":
        yield from candidates.contested(decisions)
        yield from chosen.candidates()
        for state in states:
            yield from candidates.watched(state, label=chosen.normal_label, rate=chosen.rate, at_most=2 * limit)
        for folder in folders:
            yield from candidates.in_folder(folder, label=chosen.normal_label)

    with Console(stderr=True).status("scoring") as status:
        scored = 0

        def count(_: "Item") -> None:
            nonlocal scored
            scored += 1
            status.update(f"scoring: {scored:,} images")

        predictor, decided = Predictor(chosen.model), frozenset(standing)
        queue = ReviewQueue(waiting, rate=chosen.rate, limit=limit)
        queue.add_known(chosen.normal_images, predictor)
        queue.add(found(), predictor, decided=decided, scored=count)
        return queue.in_order(decided)


def _serve(
    items: "list[Item]", decisions: "ReviewFolder", name: str, step: str, port: int, opened_in: Path | None
) -> None:
    """Serve until Ctrl-C; `opened_in`: a private folder for the page that opens the browser, or None to leave it."""
    from runtime.signals import stop_on_signals
    from serving.reviewing.app import Queue, local_access, review_app
    from serving.reviewing.run import HOST, open_in_browser, running
    from serving.server.access import new_token

    token, queue = new_token(), Queue(items)
    access = local_access(token, hint="open the address that `autoencoder review` printed; it contains a token")
    app = review_app(lambda: queue, decisions, access, title=f"Review of {name}", next_step=step)
    with stop_on_signals() as stop, running(app, port) as used:
        address = f"http://{HOST}:{used}/#token={token}"
        click.echo(f"{len(items):,} images to look at: {address}\nCtrl-C ends the review.")
        if opened_in is not None:
            open_in_browser(address, opened_in)
        stop.wait()
