"""The error that both protocols report: a gRPC status, the corresponding HTTP status, and a message."""

from enum import Enum
from http import HTTPStatus

from runtime.errors import UserError


class Status(Enum):
    """The gRPC statuses that the server uses: (gRPC number, HTTP status)."""

    INVALID_ARGUMENT = (3, HTTPStatus.BAD_REQUEST)
    DEADLINE_EXCEEDED = (4, HTTPStatus.GATEWAY_TIMEOUT)
    NOT_FOUND = (5, HTTPStatus.NOT_FOUND)
    RESOURCE_EXHAUSTED = (8, HTTPStatus.TOO_MANY_REQUESTS)
    FAILED_PRECONDITION = (9, HTTPStatus.BAD_REQUEST)
    UNIMPLEMENTED = (12, HTTPStatus.NOT_IMPLEMENTED)
    INTERNAL = (13, HTTPStatus.INTERNAL_SERVER_ERROR)
    UNAVAILABLE = (14, HTTPStatus.SERVICE_UNAVAILABLE)
    UNAUTHENTICATED = (16, HTTPStatus.UNAUTHORIZED)

    @property
    def grpc_number(self) -> int:
        """The number of the status in gRPC, which TensorFlow's error codes share."""
        return self.value[0]

    @property
    def http_status(self) -> HTTPStatus:
        """The HTTP status with which TensorFlow Serving's REST API reports it."""
        return self.value[1]


MAX_MESSAGE_CHARS = 1000
"""gRPC sends the message in a header of limited size, and messages may quote what a client sent."""


def sendable(text: str) -> str:
    """The text with lone surrogates, which no protocol can encode, escaped as `\\ud800`.

    They occur in JSON strings and in file names that are not valid text.
    """
    return text.encode(errors="backslashreplace").decode()


class ServingError(UserError):
    """A failed request: its `status` and a `message`."""

    def __init__(self, status: Status, message: str) -> None:
        self.status = status
        message = sendable(message)
        self.message = message if len(message) <= MAX_MESSAGE_CHARS else f"{message[:MAX_MESSAGE_CHARS]}..."
        super().__init__(self.message)


def invalid_argument(message: str) -> ServingError:
    """An error in the request: HTTP 400, gRPC INVALID_ARGUMENT."""
    return ServingError(Status.INVALID_ARGUMENT, message)
