"""Only complete files are ready, once each, in the order in which they became complete."""

import os
from pathlib import Path

from serving.watching.arrivals import SETTLE_S, WRITING_SETTLE_S, Arrivals
from serving.watching.found import Found, all_images, look


def names(arrivals: Arrivals, limit: int = 100) -> list[str]:
    return [found.name for found in arrivals.take(limit)]


def test_a_closed_file_is_ready_at_once_and_only_once() -> None:
    arrivals, found = Arrivals(), Found("a.png", 10, 1)
    arrivals.opened(found, 0.0)
    arrivals.completed(found)
    assert names(arrivals) == ["a.png"]
    arrivals.done(found)
    arrivals.completed(found)
    arrivals.listed(found, 1.0)
    arrivals.settle(1e9)
    assert arrivals.waiting == 0


def test_a_listed_file_is_ready_after_it_has_stayed_the_same() -> None:
    arrivals = Arrivals()
    arrivals.listed(Found("a.png", 10, 1), 0.0)
    arrivals.settle(SETTLE_S - 0.01)
    assert names(arrivals) == []
    arrivals.listed(Found("a.png", 20, 2), SETTLE_S - 0.01)  # it has grown
    arrivals.settle(SETTLE_S)
    assert names(arrivals) == []
    arrivals.settle(2 * SETTLE_S)
    assert names(arrivals) == ["a.png"]


def test_a_writer_that_pauses_is_waited_for_as_long_as_the_file_is_open() -> None:
    arrivals = Arrivals()
    arrivals.opened(Found("a.png", 10, 1), 0.0)
    arrivals.listed(Found("a.png", 20, 2), 1.0)
    arrivals.settle(SETTLE_S + 10)
    assert names(arrivals) == []
    arrivals.settle(1.0 + WRITING_SETTLE_S)
    assert names(arrivals) == ["a.png"]


def test_a_hard_link_is_never_closed_and_not_waited_for() -> None:
    arrivals = Arrivals()
    arrivals.opened(Found("a.png", 10, 1, links=2), 0.0)
    arrivals.settle(SETTLE_S)
    assert names(arrivals) == ["a.png"]


def test_files_are_taken_in_the_order_of_their_completion() -> None:
    arrivals = Arrivals()
    for name in ("slow", "b", "a"):
        arrivals.opened(Found(name, 1, 1), 0.0)
    for name in ("b", "a", "slow"):
        arrivals.completed(Found(name, 1, 1))
    assert names(arrivals, 2) == ["b", "a"]
    assert names(arrivals) == ["slow"]


def test_a_changed_file_is_a_new_image() -> None:
    arrivals = Arrivals()
    arrivals.done(Found("latest.png", 10, 1))
    arrivals.completed(Found("latest.png", 10, 2))
    assert names(arrivals) == ["latest.png"]


def test_files_that_disappear_are_forgotten() -> None:
    arrivals = Arrivals()
    arrivals.listed(Found("gone.png", 1, 1), 0.0)
    arrivals.listed(Found("here.png", 1, 1), 0.0)
    arrivals.forget_missing({"here.png"})
    arrivals.settle(100.0)
    assert names(arrivals) == ["here.png"]


def test_a_listing_has_images_only_the_oldest_first(tmp_path: Path) -> None:
    for mtime_s, name in enumerate(["z.png", "sub/a.JPG", "b.png"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
        os.utime(tmp_path / name, (mtime_s, mtime_s))
    for name in ("notes.txt", ".hidden.png", ".cache/c.png", "ground_truth/m.png", "d.png.partial"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / "folder.png").mkdir()
    assert [found.name for found in all_images(tmp_path)] == ["z.png", "sub/a.JPG", "b.png"]
    assert look(tmp_path, "folder.png") is None
    assert look(tmp_path, "gone.png") is None
