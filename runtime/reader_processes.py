"""Processes that read many files at once, without importing for each what reading imports, such as TensorFlow.

A copy of this process waits, taken before TensorFlow starts threads, and copies itself for every reader.
"""

import contextlib
import gc
import os
import pickle
import random
import signal
import socket
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from fcntl import F_SETPIPE_SZ, fcntl
from typing import IO, Any, Final, NoReturn, TypeVar

from runtime.errors import UserError

_PIPE_BYTES: Final = 1 << 20
"""Results of a reader that may wait for those of the others; the largest pipe that any user may have."""
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_requests: list[socket.socket] = []
"""To the waiting copy; it ends if this is closed."""
_lock = threading.Lock()


class ReaderEndedError(UserError):
    """A reader was killed, or crashed."""


def prepare() -> None:
    """Keep a copy of this process that starts readers; threads of TensorFlow must not run yet."""
    ours, its = socket.socketpair()
    with warnings.catch_warnings():
        # Python 3.12 warns of threads. Those of the imports belong to NumPy and jemalloc, which expect to be copied.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        ours.close()
        _wait_and_start(its)
    its.close()
    _requests.append(ours)


def is_prepared() -> bool:
    """Whether `read_all` can be used."""
    return bool(_requests)


def read_all(read: Callable[[_Item], _Result], items: Sequence[_Item], *, processes: int) -> Iterator[_Result]:
    """`read` of each item, in order; each process is one result ahead, and a few that fit into a pipe wait.

    Raises the error of `read` in its turn, and ReaderEndedError for a process that ended without one.
    """
    readers = _dealt(len(items), processes)
    mine: list[list[_Item]] = [[] for _ in range(processes)]
    for item, reader in zip(items, readers, strict=True):
        mine[reader].append(item)
    with contextlib.ExitStack() as stack:
        results = [stack.enter_context(_started(read, some)) for some in mine]
        for reader in readers:
            try:
                result, error = pickle.load(results[reader])
            except EOFError:
                raise ReaderEndedError(
                    "a process that reads images was killed, perhaps because memory ran out; set data.workers to 1"
                ) from None
            if error:
                raise error
            yield result


def _dealt(count: int, processes: int) -> list[int]:
    """Each item's process. Of consecutive items each takes one, in changing order: every second file may be large."""
    order = random.Random(0)
    dealt: list[int] = []
    while len(dealt) < count:
        dealt += order.sample(range(processes), processes)
    return dealt[:count]


def _started(read: Callable[[Any], Any], items: Sequence[Any]) -> IO[bytes]:
    """The results of a new reader."""
    task_end, task = os.pipe()
    results, result_end = os.pipe()
    with contextlib.suppress(OSError):  # a user's limit
        fcntl(results, F_SETPIPE_SZ, _PIPE_BYTES)
    with contextlib.suppress(BrokenPipeError), _lock:  # the waiting copy was killed: there will be no results
        # The reader's messages go where those of this process go now.
        socket.send_fds(_requests[0], [b"r"], [task_end, result_end, 1, 2])
    os.close(task_end)
    os.close(result_end)
    with contextlib.suppress(BrokenPipeError), os.fdopen(task, "wb") as stream:  # its results will end early
        pickle.dump((os.sched_getaffinity(0), read, items), stream)
    return os.fdopen(results, "rb")


def _wait_and_start(requests: socket.socket) -> NoReturn:
    """The life of the waiting copy: it never returns to the code that it was copied from."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with the process that it was copied from
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        # What this process has opened belongs to it: a lock is held, and a pipe open, until the last copy is closed.
        os.closerange(3, requests.fileno())
        os.closerange(requests.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
        gc.freeze()
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        while True:
            message, descriptors, _, _ = socket.recv_fds(requests, 1, 4)
            if not message:
                break
            if os.fork() == 0:
                requests.close()
                _read_and_write(*descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
    finally:
        os._exit(0)


def _read_and_write(task: int, results: int, stdout: int, stderr: int) -> NoReturn:
    """The life of a reader."""
    try:
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        with os.fdopen(task, "rb") as stream:
            cores, read, items = pickle.load(stream)
        os.sched_setaffinity(0, cores)
        with os.fdopen(results, "wb") as stream:
            for item in items:
                stream.write(_outcome(read, item))
                stream.flush()
    except BrokenPipeError:  # nobody wants the rest
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def _outcome(read: Callable[[Any], Any], item: Any) -> bytes:
    """The pickled result and error of one item."""
    try:
        return pickle.dumps((read(item), None), pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        try:
            pickled = pickle.dumps((None, error))
            pickle.loads(pickled)
            return pickled
        except Exception:  # an error that holds what cannot be pickled, or whose constructor takes more than a message
            return pickle.dumps((None, RuntimeError(f"{type(error).__name__}: {error}")))
