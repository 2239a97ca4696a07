"""The state file: no image twice, no event lost, bounded queues, one user at a time."""

from pathlib import Path

import pytest

from runtime.errors import UsageError
from serving.watching.found import Found
from serving.watching.results import Position
from serving.watching.state import DELIVERED, DROPPED, State

FINE_NS = 1_700_000_000_123_456_789


def is_gone(_: str) -> bool:
    return True


def is_there(_: str) -> bool:
    return False


def record(state: State, *images: Found, events: int = 0, size: int = 10, limit: int = 10**6) -> int:
    queued = [("sink", f"{{{n}}}", bytes(size)) for n in range(events)]
    verdicts = [(image, "normal") for image in images]
    return state.record(verdicts, queued, Position(2, 30, 40), max_queued_bytes=limit).total()


def test_a_folder_in_place_of_the_state_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder; give a file"):
        State(tmp_path, "/camera")


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    state = State(tmp_path / "s", "/camera")
    image = Found("a.png", 10, FINE_NS, inode=5)
    record(state, image, events=2)
    state.close()
    state = State(tmp_path / "s", "/camera")
    assert state.knows(image, is_gone=is_there)
    assert state.position() == Position(2, 30, 40)
    assert state.waiting_events() == {"sink": 2}
    assert state.counts()["scored"] == 1
    state.close()


def test_a_renamed_image_is_known_but_a_link_or_a_changed_one_is_not(tmp_path: Path) -> None:
    state = State(tmp_path / "s", "/camera")
    record(state, Found("a.png", 10, FINE_NS, inode=5))
    renamed = Found("b.png", 10, FINE_NS, inode=5)
    assert state.knows(renamed, is_gone=is_gone)
    assert not state.knows(renamed, is_gone=is_there)
    assert not state.knows(Found("a.png", 10, FINE_NS + 1, inode=5), is_gone=is_there)
    assert not state.knows(Found("a.png", 11, FINE_NS, inode=5), is_gone=is_there)
    state.close()


def test_a_coarse_clock_cannot_make_two_images_one(tmp_path: Path) -> None:
    """FAT and some shares count in seconds and use an inode again at once."""
    state = State(tmp_path / "s", "/camera")
    record(state, Found("a.png", 10, 1_700_000_000_000_000_000, inode=5))
    assert not state.knows(Found("b.png", 10, 1_700_000_000_000_000_000, inode=5), is_gone=is_gone)
    state.close()


def test_a_full_queue_drops_the_oldest_events_and_counts_them(tmp_path: Path) -> None:
    state = State(tmp_path / "s", "/camera")
    assert record(state, events=4, size=97, limit=300) == 1  # 100 bytes each
    assert record(state, events=2, size=97, limit=300) == 2
    assert state.waiting_events() == {"sink": 3}
    first = state.next_event("sink")
    assert first is not None
    assert first.number == 4
    state.finish(first, DELIVERED)
    assert (state.counts()[DROPPED], state.counts()[DELIVERED]) == (3, 1)
    state.close()


def test_a_dropped_event_that_was_under_way_is_not_counted_twice(tmp_path: Path) -> None:
    state = State(tmp_path / "s", "/camera")
    record(state, events=1, size=97, limit=100)
    under_way = state.next_event("sink")
    assert under_way is not None
    record(state, events=1, size=97, limit=100)
    state.finish(under_way, DELIVERED)
    assert (state.counts()[DROPPED], state.counts()[DELIVERED]) == (1, 0)
    state.close()


def test_two_watches_cannot_share_a_state(tmp_path: Path) -> None:
    state = State(tmp_path / "s", "/camera")
    with pytest.raises(UsageError, match="in use by another"):
        State(tmp_path / "s", "/camera")
    state.close()
    with pytest.raises(UsageError, match="belongs to /camera; choose another --state for /other"):
        State(tmp_path / "s", "/other")
    State(tmp_path / "s", "/camera").close()


def test_another_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("my notes, which are longer than the header of a database; " * 10)
    with pytest.raises(UsageError, match="cannot be used as the state"):
        State(tmp_path / "s", "/camera")
    assert (tmp_path / "s").read_text().startswith("my notes")


def test_only_the_owner_can_read_the_state(tmp_path: Path) -> None:
    State(tmp_path / "s", "/camera").close()
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600


def test_old_images_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    state = State(tmp_path / "s", "/camera")
    record(state, Found("old.png", 1, 1), Found("kept.png", 1, 1), Found("new.png", 1, 1))
    state._connection.execute("UPDATE images SET time_s = 0 WHERE name != 'new.png'")
    assert state.forget_removed(lambda name: name != "kept.png") == 1
    known = [name for name in ("old.png", "kept.png", "new.png") if state.knows(Found(name, 1, 1), is_gone=is_there)]
    assert known == ["kept.png", "new.png"]
    state.close()
