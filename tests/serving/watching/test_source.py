"""New images are found by notification and by listing, on a local disk and in an object store."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pyarrow import fs as arrow

from runtime.object_store import AnyPath, as_path
from serving.watching.arrivals import SETTLE_S
from serving.watching.found import Found
from serving.watching.notifications import Notifications, _file_system
from serving.watching.source import Source


@contextmanager
def source_of(place: AnyPath, **more: float) -> Iterator[Source]:
    source = Source(place, known=lambda found: found.name.startswith("known"), **more)
    source.start()
    yield source
    source.close()


def taken(source: Source, count: int, timeout_s: float = 15.0) -> list[str]:
    """The names of the next `count` images; fewer after the timeout."""
    stop = threading.Event()
    timer = threading.Timer(timeout_s, stop.set)
    timer.start()
    names: list[str] = []
    while len(names) < count and ((batch := source.batch(count - len(names), stop)) or not stop.is_set()):
        for found in batch:
            source.done(found)
        names += [found.name for found in batch]
    timer.cancel()
    return names


def write_directly(path: Path) -> None:
    path.write_bytes(b"image")


def write_and_rename(path: Path) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(b"image")
    partial.rename(path)


def write_slowly(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for byte in b"image":
            file.write(bytes([byte]))
            time.sleep(0.1)


@pytest.mark.parametrize("write", [write_directly, write_and_rename, write_slowly])
@pytest.mark.parametrize("more", [{}, {"poll_s": 0.1}], ids=["notified", "listed"])
def test_an_image_is_found_once_however_it_is_written(
    tmp_path: Path, write: Callable[[Path], None], more: dict[str, float]
) -> None:
    (tmp_path / "known.png").write_bytes(b"image")
    with source_of(tmp_path, **more) as source:
        writer = threading.Thread(target=write, args=[tmp_path / "new.png"])
        writer.start()
        assert taken(source, 1) == ["new.png"]
        assert not writer.is_alive() or (tmp_path / "new.png").read_bytes() == b"image"
        writer.join()
        assert taken(source, 1, timeout_s=SETTLE_S + 0.5) == []


def test_notified_images_come_sooner_than_listed_ones_could(tmp_path: Path) -> None:
    with source_of(tmp_path) as source:
        taken(source, 1, timeout_s=0.3)  # the first listing
        write_directly(tmp_path / "new.png")
        began_s = time.monotonic()
        assert taken(source, 1) == ["new.png"]
        assert time.monotonic() - began_s < SETTLE_S / 2


def test_an_open_file_is_not_complete_while_its_writer_pauses(tmp_path: Path) -> None:
    with source_of(tmp_path) as source:
        taken(source, 1, timeout_s=0.3)
        with (tmp_path / "slow.png").open("wb", buffering=0) as file:
            file.write(b"im")
            write_directly(tmp_path / "other.png")
            assert taken(source, 2, timeout_s=SETTLE_S + 1) == ["other.png"]
            file.write(b"age")
        assert taken(source, 1) == ["slow.png"]


def test_images_in_new_and_moved_folders_are_found(tmp_path: Path) -> None:
    place, elsewhere = tmp_path / "place", tmp_path / "elsewhere"
    place.mkdir()
    elsewhere.mkdir()
    write_directly(elsewhere / "moved.png")
    with source_of(place) as source:
        (place / "a" / "b").mkdir(parents=True)
        write_directly(place / "a" / "b" / "deep.png")
        elsewhere.rename(place / "c")
        assert set(taken(source, 2)) == {"a/b/deep.png", "c/moved.png"}
        write_directly(place / "c" / "later.png")
        assert taken(source, 1) == ["c/later.png"]


def test_a_folder_that_is_replaced_is_watched_again(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    with source_of(place) as source:
        place.rename(tmp_path / "away")
        taken(source, 1, timeout_s=0.3)
        source._next_listing_s = 0.0
        taken(source, 1, timeout_s=0.3)
        assert source.is_lost
        place.mkdir()
        write_directly(place / "back.png")
        assert taken(source, 1) == ["back.png"]
        assert not source.is_lost
        write_directly(place / "later.png")
        began_s = time.monotonic()
        assert taken(source, 1) == ["later.png"]
        assert time.monotonic() - began_s < SETTLE_S / 2, "by notification"


def test_more_notifications_than_the_kernel_keeps_lose_no_image(tmp_path: Path) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 70_000:
        pytest.skip(f"takes long with fs.inotify.max_queued_events = {limit}")
    with source_of(tmp_path) as source:
        taken(source, 1, timeout_s=0.3)
        descriptors = [os.open(tmp_path / f"{number}.png", os.O_CREAT | os.O_WRONLY) for number in (1, 2)]
        for number in range(limit):  # the kernel joins only equal notifications that follow each other
            os.write(descriptors[number % 2], b"i")
        for descriptor in descriptors:
            os.close(descriptor)
        write_directly(tmp_path / "unnoticed.png")
        assert "unnoticed.png" in taken(source, 1)


def test_objects_of_a_bucket_are_found_once(s3: arrow.S3FileSystem) -> None:
    def put(name: str) -> None:
        with s3.open_output_stream(f"bucket/parts/{name}") as stream:
            stream.write(b"image")

    put("a.png")
    put("notes.txt")
    with source_of(as_path("s3://bucket/parts/"), poll_s=0.2) as source:
        assert taken(source, 2, timeout_s=3) == ["a.png"]
        put("sub/b.png")
        assert taken(source, 1) == ["sub/b.png"]


def test_a_share_is_recognised_by_its_file_system(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        "40 22 0:50 / /mnt/line\\0401 rw - nfs4 server:/x rw\n"
        "41 40 8:2 / /mnt/line\\0401/local rw - xfs /dev/sdb rw\n"
    )
    assert _file_system(Path("/mnt/line 1/camera"), mounts) == "nfs4"
    assert _file_system(Path("/mnt/line 1/local/camera"), mounts) == "xfs"
    assert _file_system(Path("/mnt/line 10"), mounts) == "ext4"
    assert _file_system(Path("/"), tmp_path / "missing") == ""


def test_an_image_that_is_renamed_after_the_notification_is_found_under_its_new_name(tmp_path: Path) -> None:
    with source_of(tmp_path) as source:
        taken(source, 1, timeout_s=0.3)
        write_directly(tmp_path / "first.png")
        (tmp_path / "first.png").rename(tmp_path / "second.png")
        assert taken(source, 1) == ["second.png"]


def test_folders_that_are_not_searched_are_not_watched(tmp_path: Path) -> None:
    for name in (".cache", "ground_truth", "parts"):
        (tmp_path / name).mkdir()
    notifications = Notifications(tmp_path)
    for name in (".cache", "ground_truth", "parts"):
        write_directly(tmp_path / name / "a.png")
    assert {name for name, _ in notifications.read(1.0).files} == {"parts/a.png"}
    notifications.close()


def test_known_is_asked_with_the_file_as_it_is(tmp_path: Path) -> None:
    asked: list[Found] = []
    source = Source(tmp_path, known=lambda found: bool(asked.append(found)), poll_s=0.1)
    (tmp_path / "a.png").write_bytes(b"12345")
    assert taken(source, 1) == ["a.png"]
    assert {(found.name, found.size_bytes) for found in asked} == {("a.png", 5)}
