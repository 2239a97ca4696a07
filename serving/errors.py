"""A refusal that both protocols can say: a gRPC status, the HTTP status that goes with it, a message."""

from enum import Enum
from http import HTTPStatus

from runtime.errors import UserError


class Status(Enum):
    """The gRPC statuses this server uses: (gRPC number, HTTP status)."""

    INVALID_ARGUMENT = (3, HTTPStatus.BAD_REQUEST)
    DEADLINE_EXCEEDED = (4, HTTPStatus.GATEWAY_TIMEOUT)
    NOT_FOUND = (5, HTTPStatus.NOT_FOUND)
    RESOURCE_EXHAUSTED = (8, HTTPStatus.TOO_MANY_REQUESTS)
    FAILED_PRECONDITION = (9, HTTPStatus.BAD_REQUEST)
    UNIMPLEMENTED = (12, HTTPStatus.NOT_IMPLEMENTED)
    INTERNAL = (13, HTTPStatus.INTERNAL_SERVER_ERROR)
    UNAVAILABLE = (14, HTTPStatus.SERVICE_UNAVAILABLE)

    @property
    def grpc_number(self) -> int:
        """The number of the status in gRPC and in TensorFlow's error codes, which are the same."""
        return self.value[0]

    @property
    def http_status(self) -> HTTPStatus:
        """The HTTP status that TensorFlow Serving's REST front answers for it."""
        return self.value[1]


MAX_MESSAGE_CHARS = 1000
"""gRPC carries the message in a header of limited size, and part of it may quote what a stranger sent."""


def sendable(text: str) -> str:
    """The same text; halves of characters in it, which no protocol carries, are escaped as `\\ud800`.

    They come from JSON that says them, and from names of files that are no text.
    """
    return text.encode(errors="backslashreplace").decode()


class ServingError(UserError):
    """A request that is answered with `status` and `message` in place of a result."""

    def __init__(self, status: Status, message: str) -> None:
        self.status = status
        message = sendable(message)
        self.message = message if len(message) <= MAX_MESSAGE_CHARS else f"{message[:MAX_MESSAGE_CHARS]}..."
        super().__init__(self.message)


def invalid_argument(message: str) -> ServingError:
    """The caller's mistake: HTTP 400, gRPC INVALID_ARGUMENT."""
    return ServingError(Status.INVALID_ARGUMENT, message)
