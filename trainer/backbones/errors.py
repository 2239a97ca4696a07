"""What a user is told about a backbone that cannot be used."""

from runtime.errors import UserError


class BackboneError(UserError):
    """A backbone, or a file of weights, that is missing, damaged, refused or of the wrong kind."""


def first_line(error: Exception) -> str:
    """The beginning of a message, without its final stop; the kind of an error that has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
