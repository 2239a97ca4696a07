"""What a user is told about a backbone that cannot be used."""

from runtime.errors import UserError


class BackboneError(UserError):
    """A backbone, or a file of weights, that is missing, damaged, refused or of the wrong kind."""
