"""Answers requests in threads, small ones for the same version together: one thread answers all that wait.

With many clients, handing each small request to a thread of its own takes a third of the server's processor time.
"""

import asyncio
import time
from collections import deque
from collections.abc import Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from serving.errors import ServingError, Status
from serving.model.batching import Steps, answered

PATIENCE_S: Final = 0.005
"""No other request waits for a group that takes longer than this for each of its requests: some images take seconds,
and some models use several cores only if requests run side by side.
"""


@dataclass(eq=False)
class _Waiting:
    steps: Steps[bytes]
    answer: "asyncio.Future[bytes]"


@dataclass(eq=False)
class _Queue:
    """Requests that may be answered together, and the group that they wait for."""

    name: Hashable
    waiting: deque[_Waiting] = field(default_factory=deque)
    ahead: "_Group | None" = None


@dataclass(eq=False)
class _Group:
    queue: _Queue
    members: list[_Waiting] = field(default_factory=list)
    began_s: float = field(default_factory=time.monotonic)

    @property
    def patience_left_s(self) -> float:
        """How long others may still wait for it."""
        if not self.members:  # no thread is free, nor would be for another group
            return 10 * PATIENCE_S
        return self.began_s + PATIENCE_S * len(self.members) - time.monotonic()


class Groups:
    """Starts groups of requests, each in a thread; used only by the event loop's thread."""

    def __init__(self, *, threads: int, max_requests: int, max_joined: int) -> None:
        """At most `max_requests` requests are answered or wait; a group has at most `max_joined`."""
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="rest")
        self._max_requests, self._max_joined = max_requests, max_joined
        self._requests = 0
        self._queues: dict[Hashable, _Queue] = {}

    async def answer(self, steps: Steps[bytes], *, joins: Hashable) -> bytes:
        """The answer of a request, which may be in a group with others of the same `joins`; None: it is by itself.

        The first step is made at once, the others in a thread. If it is cancelled before that, nothing else is done.
        """
        if self._requests >= self._max_requests:
            raise ServingError(Status.UNAVAILABLE, "too many requests are already waiting; try again later")
        next(steps)
        self._requests += 1
        waiting = _Waiting(steps, asyncio.get_running_loop().create_future())
        may_join = joins is not None and self._max_joined > 1
        queue = self._queues.setdefault(joins, _Queue(joins)) if may_join else _Queue(None)
        queue.waiting.append(waiting)
        if queue.ahead is None:
            self._start(queue)
        try:
            return await waiting.answer
        except asyncio.CancelledError:
            with suppress(ValueError):  # in a thread already
                queue.waiting.remove(waiting)
                self._requests -= 1
                steps.close()
            raise

    def _start(self, queue: _Queue) -> None:
        queue.ahead = group = _Group(queue)
        done = asyncio.wrap_future(self._threads.submit(answered, self._taken(group)))
        done.add_done_callback(partial(self._deliver, group))
        asyncio.get_running_loop().call_later(PATIENCE_S, self._look_after, group)

    def _taken(self, group: _Group) -> Iterator[Steps[bytes]]:
        """In the thread: the requests that wait, also those that come meanwhile."""
        group.began_s = time.monotonic()
        with suppress(IndexError):  # none waits any more
            while len(group.members) < self._max_joined and group.patience_left_s > 0:
                group.members.append(group.queue.waiting.popleft())
                yield group.members[-1].steps

    def _look_after(self, group: _Group) -> None:
        """Start the next group if this one takes too long."""
        if group.queue.ahead is not group:
            return
        if (left_s := group.patience_left_s) > 0:
            asyncio.get_running_loop().call_later(left_s, self._look_after, group)
        else:
            self._start_next(group)

    def _start_next(self, group: _Group) -> None:
        """Answer those that wait for the group; none: forget the queue, since clients may invent versions."""
        queue = group.queue
        if queue.ahead is not group:
            return
        if queue.waiting:
            self._start(queue)
        else:
            queue.ahead = None
            self._queues.pop(queue.name, None)

    def _deliver(self, group: _Group, done: "asyncio.Future[list[bytes | Exception]]") -> None:
        self._start_next(group)
        # Only now, even if nobody waits for the answers any more.
        self._requests -= len(group.members)
        failed = done.exception()
        answers = [failed] * len(group.members) if failed else done.result()
        for waiting, answer in zip(group.members, answers, strict=True):
            if waiting.answer.done():
                continue
            if isinstance(answer, BaseException):
                waiting.answer.set_exception(answer)
            else:
                waiting.answer.set_result(answer)
