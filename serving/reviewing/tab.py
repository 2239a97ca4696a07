"""The review as a tab of a server's page: the images that it keeps, and the suspects of the run behind each model."""

import contextlib
import functools
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.routing import Mount, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from runtime.errors import UsageError, UserError
from schema.reviewed import REVIEW_FOLDER
from serving.reviewing.app import Access, Queue, review_app
from serving.reviewing.candidates import KEPT, Candidate, contested, of_files
from serving.reviewing.queue import Item, ReviewQueue
from serving.reviewing.review_folder import ReviewFolder
from serving.score_log import read_calibration
from serving.server.kept_images import KeptImages, kept_files
from serving.server.logs import LOGGER
from serving.server.model_host import Requested, ServedVersion
from serving.server.pages import tabs
from serving.server.served_models import ServedModels

LIMIT: Final = 500
"""Images in the queue of each model, those nearest to the threshold; suspects come in addition."""
_AT_A_TIME: Final = 64
"""Images after which the page gets a new queue while others are still scored."""


class Run(Protocol):
    """What the tab needs of the run that trained a model."""

    @property
    def normal_label(self) -> str:
        """The label of normal images."""

    @property
    def normal_images(self) -> tuple[bytes, ...]:
        """Images that the model's calibration has seen."""

    def suspects(self) -> Iterator[Candidate]:
        """Training images that look like anomalies."""


@dataclass(frozen=True)
class Runs:
    """Finds the run behind a model."""

    folder_of: Callable[[Path], Path | None]
    """The run's folder, from the folder of a model's versions; None if no run has written it."""
    read: Callable[[Path], Run]
    """The newest run in such a folder; raises UserError."""


@contextlib.contextmanager
def review_tab(models: ServedModels, kept: KeptImages, access: Access, runs: Runs) -> Iterator[ASGIApp]:
    """An ASGI application with the review of each model under its name.

    Images are scored by the served version, in a thread, and only while somebody looks at the review.
    """
    with tempfile.TemporaryDirectory(prefix="autoencoder-review-") as waiting:
        tab = _Tab(models, kept, access, runs, Path(waiting))
        try:
            yield Router([Mount("/{model}", app=tab)])
        finally:
            tab.close()


class _Tab:
    def __init__(self, models: ServedModels, kept: KeptImages, access: Access, runs: Runs, waiting: Path) -> None:
        self._models, self._kept, self._access, self._runs, self._waiting = models, kept, access, runs, waiting
        self._worker = _Worker()
        self._lock = threading.Lock()
        self._apps: dict[tuple[str, Path], Starlette] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = scope["path_params"]["model"]
        if not self._models.serves(name):
            raise HTTPException(404, f"no model {name} is served")
        try:
            app = await run_in_threadpool(self._app_of, name)
        except UsageError as error:
            raise HTTPException(500, str(error)) from None
        await app(scope, receive, send)

    def close(self) -> None:
        """Stop scoring."""
        self._worker.close()

    def _app_of(self, name: str) -> Starlette:
        versions = self._models.base_path(name)
        with self._lock:
            if (name, versions) not in self._apps:
                self._apps[name, versions] = self._new_app(name, versions)
            return self._apps[name, versions]

    def _new_app(self, name: str, versions: Path) -> Starlette:
        folder = self._runs.folder_of(versions)
        kept = self._kept.folder_of(name)
        decisions = ReviewFolder((folder or kept) / REVIEW_FOLDER)
        read_run = functools.partial(self._runs.read, folder) if folder else None
        waiting = Path(tempfile.mkdtemp(dir=self._waiting))
        review = _Review(name, self._models, self._worker, decisions, kept, waiting, read_run)
        setting = "" if folder else f" with --set data.reviewed={decisions.manifest}"
        return review_app(
            review.queue,
            decisions,
            self._access,
            title=f"Review of {folder.name if folder else name}",
            next_step=f"The next `autoencoder run`{setting} uses the decisions.",
            tabs=tabs(try_it=f"../../#{quote(name)}"),
        )


class _StoppedError(Exception):
    """The server stops."""


class _Worker:
    """Runs one task at a time, so that the reviews of several models leave the processor to requests."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="review")
        self._is_closed = False

    def submit(self, task: Callable[[], None]) -> None:
        """Run a task soon, or never if the server stops before."""
        with contextlib.suppress(RuntimeError):  # closed
            self._executor.submit(task)

    def check(self) -> None:
        """End a task, by raising _StoppedError, if the server stops."""
        if self._is_closed:
            raise _StoppedError

    def close(self) -> None:
        """End the running task, and start no other."""
        self._is_closed = True
        self._executor.shutdown(cancel_futures=True)


class _Review:
    """The queue of one model, which grows with the images that are kept while somebody looks at it."""

    def __init__(
        self,
        name: str,
        models: ServedModels,
        worker: _Worker,
        decisions: ReviewFolder,
        kept: Path,
        waiting: Path,
        read_run: Callable[[], Run] | None,
    ) -> None:
        self._name, self._models, self._worker, self._decisions = name, models, worker, decisions
        self._kept, self._waiting, self._read_run = kept, waiting, read_run
        self._lock = threading.Lock()
        self._is_updating = False
        self._shown = Queue(scored=0)
        self._queue: ReviewQueue | None = None
        self._folder = waiting
        """Where the files of the queue wait."""
        self._version: int | None = None
        """The version that has scored the queue."""
        self._label = self._problem = ""
        self._taken: set[Path] = set()
        """Kept files that were scored."""

    def queue(self) -> Queue:
        """What was scored so far; looks for more in the background."""
        with self._lock:
            if not self._is_updating:
                self._is_updating = True
                self._worker.submit(self._update)
            return self._shown

    def _update(self) -> None:
        try:
            self._look()
        except _StoppedError:
            return
        except (UserError, OSError) as error:
            self._show(scored=None, problem=str(error))
        except Exception as error:
            LOGGER.exception("review_failed", extra={"fields": {"model": self._name}})
            self._show(scored=None, problem=f"{type(error).__name__} in the server; see its log")
        finally:
            with self._lock:
                self._is_updating = False

    def _look(self) -> None:
        kept = kept_files(self._kept)
        self._taken &= set(kept)
        newest = self._models.states(Requested(self._name))[0].version
        if newest != self._version or not self._taken.issuperset(kept):  # else a model that was unloaded stays so
            self._take(kept)
        self._show(scored=None, problem=self._problem)

    def _take(self, kept: Sequence[Path]) -> None:
        with self._models.lease(Requested(self._name)) as served:
            is_other = served.number != self._version
            is_replaced = is_other and bool(self._shown.items)
            if is_other:
                self._begin(served)
            new = [path for path in kept if path not in self._taken]
            if not new and not is_other:
                return
            while new:
                some, new = new[:_AT_A_TIME], new[_AT_A_TIME:]
                self._score(of_files(some, KEPT, label=self._label), served)
                self._taken.update(some)
                if not is_replaced:  # the page shows the old queue until the new one is complete
                    self._show_queue()
        self._show_queue()
        for folder in self._waiting.iterdir():
            if folder != self._folder:  # of a version that was replaced
                shutil.rmtree(folder)

    def _begin(self, served: ServedVersion) -> None:
        """A queue for another version, with the suspects."""
        calibration = read_calibration(served.folder.path)
        if calibration is None:
            raise UsageError(f"version {served.number} of {self._name} has no calibration: push a calibrated model")
        self._folder = Path(tempfile.mkdtemp(dir=self._waiting))
        self._queue = ReviewQueue(self._folder, rate=calibration.false_alarm_rate, limit=LIMIT)
        self._version, self._taken = None, set()
        self._score(contested(self._decisions), served)
        self._problem = ""
        if self._read_run:
            try:
                run = self._read_run()
            except UserError as error:  # what was kept can be reviewed without it
                self._problem = str(error)
            else:
                self._label = run.normal_label
                for start in range(0, len(run.normal_images), _AT_A_TIME):
                    self._worker.check()
                    self._queue.add_known(run.normal_images[start : start + _AT_A_TIME], served.predictor)
                self._score(run.suspects(), served)
        self._version = served.number

    def _score(self, candidates: Iterable[Candidate], served: ServedVersion) -> None:
        assert self._queue is not None
        self._queue.add(candidates, served.predictor, decided=self._decided(), scored=self._count)

    def _count(self, _: Item) -> None:
        self._worker.check()
        self._show(scored=(self._shown.scored or 0) + 1)

    def _decided(self) -> frozenset[str]:
        return frozenset(self._decisions.standing())

    def _show_queue(self) -> None:
        assert self._queue is not None
        self._show(items=self._queue.in_order(self._decided()), number=self._shown.number + 1)

    def _show(self, **changes: Any) -> None:
        self._shown = replace(self._shown, **changes)
