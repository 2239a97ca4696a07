"""Finds the new, complete images of the watched place."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from runtime.object_store import AnyPath
from serving.server.logs import log_event
from serving.watching.arrivals import Arrivals
from serving.watching.found import Found, all_images, look_if_possible
from serving.watching.notifications import Notifications, is_share

LISTING_INTERVAL_S: Final = 30.0
"""With notifications, which may be lost."""
SHARE_POLL_S: Final = 1.0
STORE_POLL_S: Final = 10.0
_READ_TIMEOUT_S: Final = 0.2
_INTERVAL_PER_LISTING: Final = 10.0
"""A folder of millions of files must not be listed all the time."""
_IDLE_S: Final = 1.0
_RETRY_S: Final = 2.0


class Source:
    """The images that are not `known` yet, once each."""

    def __init__(self, place: AnyPath, *, known: Callable[[Found], bool], poll_s: float | None = None) -> None:
        self.place = place
        self._known = known
        self._arrivals = Arrivals()
        self._notifications: Notifications | None = None
        self._can_notify = poll_s is None and isinstance(place, Path) and not is_share(place)
        self._poll_s = poll_s or (SHARE_POLL_S if isinstance(place, Path) else STORE_POLL_S)
        self._next_listing_s = 0.0
        self._failed_listings = 0

    @property
    def waiting(self) -> int:
        """The number of images that were noticed and are not done."""
        return self._arrivals.waiting

    @property
    def is_lost(self) -> bool:
        """Whether the place could not be listed the last time."""
        return self._failed_listings > 0

    def start(self) -> str:
        """Begin to watch; returns how, in words."""
        self._renew_notifications()
        return "notifications" if self._notifications else f"listing every {self._poll_s:g} s"

    def close(self) -> None:
        """Stop watching."""
        if self._notifications is not None:
            self._notifications.close()

    def batch(self, limit: int, stop: threading.Event) -> list[Found]:
        """Up to `limit` complete images, in the order in which they became complete.

        Waits for one for a second, or until `stop`; then returns [].
        """
        until_s = time.monotonic() + _IDLE_S
        while True:
            is_stopping = stop.is_set()
            if not is_stopping and time.monotonic() >= self._next_listing_s:
                self._list()
            self._read(0.0 if is_stopping or self._arrivals.ready else _READ_TIMEOUT_S, stop)
            self._arrivals.settle(time.monotonic())
            taken = self._arrivals.take(limit)
            if taken or is_stopping or time.monotonic() >= until_s:
                return taken

    def done(self, found: Found) -> None:
        """The image was scored and recorded, or is gone."""
        self._arrivals.done(found)

    def changed(self, found: Found) -> None:
        """The image has changed while it was read."""
        self._arrivals.listed(found, time.monotonic())

    def retry(self, found: Found, tries: int) -> None:
        """Return the image again after a while, in case it was not complete."""
        self._arrivals.retry(found, time.monotonic() + min(LISTING_INTERVAL_S, _RETRY_S * tries))

    def _read(self, timeout_s: float, stop: threading.Event) -> None:
        if self._notifications is None:
            stop.wait(timeout_s)
            return
        try:
            changes = self._notifications.read(timeout_s)
        except OSError as error:
            self._give_up_notifications(error)
            return
        if changes.must_list:
            self._next_listing_s = 0.0
        last = {name: number for number, (name, _) in enumerate(changes.files)}
        for name, is_complete in (changes.files[number] for number in sorted(last.values())):
            found = look_if_possible(self.place, name)
            if found is None or self._arrivals.is_done(found):
                continue
            if not is_complete:
                self._arrivals.opened(found, time.monotonic())
            elif self._known(found):
                self._arrivals.done(found)
            else:
                self._arrivals.completed(found)

    def _list(self) -> None:
        began_s = time.monotonic()
        try:
            self._renew_notifications()
            listing = list(all_images(self.place))
        except OSError as error:
            self._failed_listings += 1
            if self._failed_listings == 1:
                log_event("cannot_list", place=str(self.place), reason=str(error))
            self._next_listing_s = time.monotonic() + min(LISTING_INTERVAL_S, 2.0**self._failed_listings)
            return
        if self._failed_listings:
            log_event("listed_again", place=str(self.place))
            self._failed_listings = 0
        for found in listing:
            if self._arrivals.is_done(found):
                continue
            if self._known(found):
                self._arrivals.done(found)
            elif isinstance(self.place, Path):
                self._arrivals.listed(found, time.monotonic())
            else:
                self._arrivals.completed(found)
        self._arrivals.forget_missing({found.name for found in listing})
        took_s = time.monotonic() - began_s
        interval_s = LISTING_INTERVAL_S if self._notifications else self._poll_s
        self._next_listing_s = time.monotonic() + max(interval_s, _INTERVAL_PER_LISTING * took_s)

    def _renew_notifications(self) -> None:
        """Start notifications, or start them anew if another folder has taken the watched one's place."""
        if not self._can_notify or not isinstance(self.place, Path):
            return
        if self._notifications is not None and not self._notifications.is_lost:
            return
        self.close()
        self._notifications = None
        try:
            self._notifications = Notifications(self.place)
        except FileNotFoundError:
            raise
        except (OSError, ImportError) as error:
            self._give_up_notifications(error)

    def _give_up_notifications(self, error: Exception) -> None:
        """List the folder instead, such as when the kernel's limit of watched folders is reached."""
        log_event("no_notifications", reason=str(error), poll_s=self._poll_s)
        self.close()
        self._notifications, self._can_notify, self._next_listing_s = None, False, 0.0
