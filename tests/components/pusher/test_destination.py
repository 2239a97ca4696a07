"""A push is atomic for servers, for other pushes, and if it is interrupted."""

import errno
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from components.pusher import destination as push_destination
from components.pusher.destination import (
    PushError,
    digest_of,
    push,
    reinstate,
    rollback,
    versions,
    withdrawn,
)

FILES = {"saved_model.pb": b"graph", "variables/variables.index": b"index", "assets.extra/warm": b"requests"}


def _allow(folder: Path) -> None:
    """A check that accepts every model."""


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A folder with the files of an exported model."""
    for name, content in FILES.items():
        path = tmp_path / "exported" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "exported"


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _names(base: Path) -> list[str]:
    return sorted(path.name for path in base.iterdir())


def test_a_version_has_every_file_and_is_numbered_by_the_time(exported: Path, tmp_path: Path) -> None:
    """In seconds, like TFX's Pusher."""
    before = int(time.time())
    pushed = push(str(exported), str(tmp_path / "serving"), check=_allow)
    assert before <= pushed.number <= time.time()
    assert pushed.path == str(tmp_path / "serving" / str(pushed.number))
    assert _content(Path(pushed.path)) == FILES
    assert _names(tmp_path / "serving") == [str(pushed.number)]


def test_a_watcher_never_sees_an_incomplete_version(exported: Path, tmp_path: Path) -> None:
    """If a folder with a numeric name exists, so do all of its files."""
    base, stop, incomplete = tmp_path / "serving", threading.Event(), []
    base.mkdir()

    def watch() -> None:
        while not stop.is_set():
            incomplete.extend(name for name in _names(base) if name.isdigit() and _content(base / name) != FILES)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(20):
        push(str(exported), str(base), check=_allow)
    stop.set()
    watcher.join()
    assert incomplete == []
    assert len(_names(base)) == 20


def test_simultaneous_pushes_all_succeed(exported: Path, tmp_path: Path) -> None:
    """Eight versions that are renamed at the same time get eight numbers."""
    base, barrier, pushed = tmp_path / "serving", threading.Barrier(8), []

    def run() -> None:
        pushed.append(push(str(exported), str(base), check=lambda folder: barrier.wait() and None))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({version.number for version in pushed}) == 8
    assert sorted(str(version.number) for version in pushed) == _names(base)
    assert all(_content(base / name) == FILES for name in _names(base))


def test_a_push_is_newer_than_every_version_even_if_clocks_differ(exported: Path, tmp_path: Path) -> None:
    """A version numbered in the future does not hide later pushes."""
    (tmp_path / "serving" / "9999999999").mkdir(parents=True)
    assert push(str(exported), str(tmp_path / "serving"), check=_allow).number == 10_000_000_000


def test_a_refused_model_leaves_no_files(exported: Path, tmp_path: Path) -> None:
    """The check sees the complete copy under a name that is not a number."""
    seen = []

    def refuse(folder: Path) -> None:
        seen.append((folder.parent.name, _content(folder)))
        raise PushError("no")

    with pytest.raises(PushError):
        push(str(exported), str(tmp_path / "serving"), check=refuse)
    name, content = seen[0]
    assert name.startswith(".")
    assert name.endswith(".partial")
    assert content == FILES
    assert _names(tmp_path / "serving") == []


def test_a_killed_push_leaves_no_version_and_is_cleaned_up_by_the_next(exported: Path, tmp_path: Path) -> None:
    """The process is killed between copy and rename."""
    base = tmp_path / "serving"
    killed = os.fork()
    if killed == 0:
        push(str(exported), str(base), check=lambda folder: os._exit(9))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(killed, 0)[1]) == 9
    (left,) = base.iterdir()
    assert left.name.endswith(".partial")
    fresh = push(str(exported), str(base), check=_allow)
    assert _names(base) == [str(fresh.number)]


def test_a_push_keeps_the_partial_copy_of_another(exported: Path, tmp_path: Path) -> None:
    """Neither of two simultaneous pushes treats the other's copy as abandoned."""
    base = tmp_path / "serving"
    within = []

    def push_another(folder: Path) -> None:
        within.append(push(str(exported), str(base), check=_allow))
        assert _content(folder) == FILES

    outer = push(str(exported), str(base), check=push_another)
    assert _names(base) == sorted([str(within[0].number), str(outer.number)])


def test_keep_removes_only_old_versions(exported: Path, tmp_path: Path) -> None:
    """Sorted by number, not by name; other folders are kept."""
    base = tmp_path / "serving"
    for name in ("9", "10", "00000011", "notes"):
        _model(base / name, name)
    pushed = push(str(exported), str(base), check=_allow, keep=3)
    assert _names(base) == sorted(["notes", "10", "00000011", str(pushed.number)])


def test_a_version_without_saved_model_does_not_count_as_kept(tmp_path: Path) -> None:
    """A newer one may still be uploading and is kept; one older than the kept versions is removed."""
    for name in ("3", "7", "9", "11"):
        (tmp_path / name).mkdir()
    for name in ("6", "8", "10"):
        _model(tmp_path / name, name)
    push_destination._remove_all_but_newest(str(tmp_path), keep=4)
    assert len(_names(tmp_path)) == 7
    push_destination._remove_all_but_newest(str(tmp_path), keep=2)
    assert _names(tmp_path) == ["10", "11", "8", "9"]
    push_destination._remove_all_but_newest(str(tmp_path), keep=1)
    assert _names(tmp_path) == ["10", "11"]


def test_an_object_store_gets_saved_model_last(exported: Path, tmp_path: Path) -> None:
    """Without an atomic rename, no loader accepts a version before its saved_model.pb exists."""
    checked = []
    pushed = push_destination._upload(str(exported), str(tmp_path), lambda folder: checked.append(_content(folder)))
    times = {path.name: path.stat().st_mtime_ns for path in Path(pushed.path).rglob("*") if path.is_file()}
    assert checked == [FILES]
    assert _content(Path(pushed.path)) == FILES
    assert max(times, key=lambda name: times[name]) == "saved_model.pb"


def _model(folder: Path, name: str) -> str:
    """A folder with a model that is unique to `name`."""
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "variables.index").write_bytes(name.encode())
    return str(folder)


@pytest.fixture
def destination(tmp_path: Path) -> str:
    """Versions of the models a, b and c; c is the newest."""
    base = str(tmp_path / "serving")
    for name in "abc":
        push(_model(tmp_path / name, name), base, check=_allow)
    return base


def _models(base: str) -> list[str]:
    """The model in each version, oldest first."""
    return [Path(v.path, "variables/variables.index").read_text() for v in reversed(versions(base))]


def test_a_rollback_pushes_the_previous_model_under_a_newer_number(destination: str) -> None:
    """Nothing is removed, so the newest version never disappears for servers."""
    before = versions(destination)
    done = rollback(destination, check=_allow)
    assert _models(destination) == ["a", "b", "c", "b"]
    assert (done.left, done.returned_to) == (before[0], before[1])
    assert done.pushed.number > before[0].number
    assert [v.is_withdrawn for v in versions(destination)] == [False, True, False, False]


def test_repeated_rollbacks_go_further_back_until_no_model_is_left(destination: str) -> None:
    """They do not alternate between two models."""
    rollback(destination, check=_allow)
    rollback(destination, check=_allow)
    assert _models(destination)[-1] == "a"
    with pytest.raises(PushError, match="no earlier one"):
        rollback(destination, check=_allow)
    assert len(withdrawn(destination)) == 2


def test_a_rollback_that_fails_or_is_killed_changes_nothing(destination: str) -> None:
    """If the previous model does not load, the served one is not withdrawn."""

    def refuse(folder: Path) -> None:
        raise PushError("no")

    with pytest.raises(PushError):
        rollback(destination, check=refuse)
    killed = os.fork()
    if killed == 0:
        rollback(destination, check=lambda folder: os._exit(9))
        os._exit(0)
    os.waitpid(killed, 0)
    assert _models(destination) == ["a", "b", "c"]
    assert withdrawn(destination) == {}


def test_a_rollback_killed_after_withdrawing_is_completed_by_the_next(destination: str) -> None:
    """The served model is already withdrawn and is still the one to replace."""

    def die_before_the_version_appears(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename" and Path(arguments[1]).name.isdigit():
            os._exit(9)

    killed = os.fork()
    if killed == 0:
        sys.addaudithook(die_before_the_version_appears)
        rollback(destination, check=_allow)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(killed, 0)[1]) == 9
    assert (_models(destination), len(withdrawn(destination))) == (["a", "b", "c"], 1)
    rollback(destination, check=_allow)
    assert (_models(destination), len(withdrawn(destination))) == (["a", "b", "c", "b"], 1)


def test_simultaneous_rollbacks_return_to_the_same_model(destination: str) -> None:
    """It gets two numbers; only one model is withdrawn."""
    barrier = threading.Barrier(2)
    threads = [
        threading.Thread(target=rollback, args=(destination,), kwargs={"check": lambda _: barrier.wait() and None})
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _models(destination) == ["a", "b", "c", "b", "b"]
    assert len(withdrawn(destination)) == 1


def test_a_reinstated_model_is_no_longer_withdrawn(destination: str) -> None:
    """Reinstating a model that was not withdrawn has no effect."""
    left = rollback(destination, check=_allow).left
    reinstate(destination, "0" * 32)
    reinstate(destination, left.digest)
    assert withdrawn(destination) == {}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": "x"}', "\x80"])
def test_a_damaged_record_still_withdraws_its_model(destination: str, content: str) -> None:
    """A model that was rolled back must not return; the message names the file to remove."""
    left = rollback(destination, check=_allow).left
    record = Path(destination, ".withdrawn", f"{left.digest}.json")
    record.write_text(content, encoding="latin-1")
    assert [version.is_withdrawn for version in versions(destination)] == [False, True, False, False]
    assert withdrawn(destination)[left.digest].text.startswith(f"{record} cannot be read; remove it")
    assert _models(destination)[-1] == "b"
    rollback(destination, check=_allow)
    assert _models(destination)[-1] == "a"
    reinstate(destination, left.digest)
    assert left.digest not in withdrawn(destination)


def test_other_files_beside_the_records_are_ignored(destination: str) -> None:
    """Such as what NFS keeps of a file that was removed while it was open."""
    left = rollback(destination, check=_allow).left
    for name in (".nfs0001", "x.json", f".{left.digest}.json.swp", f"{left.digest}.txt"):
        Path(destination, ".withdrawn", name).touch()
    Path(destination, ".withdrawn", "lost+found").mkdir()
    assert list(withdrawn(destination)) == [left.digest]


def test_a_rollback_that_cannot_write_its_record_changes_nothing(destination: str) -> None:
    """The limit is larger than the files of these models, and smaller than a record."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, resource.RLIM_INFINITY))
        try:
            rollback(destination, check=_allow)
        except OSError as error:
            os._exit(error.errno or 0)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == errno.EFBIG
    assert (_models(destination), withdrawn(destination)) == (["a", "b", "c"], {})
    assert list(Path(destination, ".withdrawn").iterdir()) == []


def test_an_unfinished_upload_is_not_a_version(destination: str) -> None:
    """Without saved_model.pb it is neither listed nor used for a rollback."""
    newest = versions(destination)[0]
    Path(newest.path, "saved_model.pb").unlink()
    assert newest not in versions(destination)
    assert rollback(destination, check=_allow).left.number < newest.number
    assert digest_of(newest.path) != newest.digest


def test_keeping_no_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep 0: at least 1 version must be kept"):
        push("model", str(tmp_path), check=lambda folder: None, keep=0)
    assert list(tmp_path.iterdir()) == []
