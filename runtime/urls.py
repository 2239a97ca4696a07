"""URLs in messages: without what must not be logged."""

import re


def without_secrets(url: str) -> str:
    """`url` without user, password, query and fragment, also if it is malformed.

    What may be part of a password that was not percent-encoded is left out, too.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "…" if re.search(":.*@", url, re.DOTALL) else url
    authority, slash, path = re.split("[?#]", rest, maxsplit=1)[0].partition("/")
    if "@" not in authority and ":" in authority and "@" in rest:
        return f"{scheme}://…"
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"
