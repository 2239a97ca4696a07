"""Checks cron expressions before they are sent: kfp's client accepts any text, and the server's errors are terse.

Kubeflow parses six fields, seconds first, with github.com/robfig/cron (version 1), and descriptors such as @daily and
@every 12h. croniter cannot check these: it also accepts five and seven fields, L, # and backward ranges, and rejects
@every. Of five fields, Kubeflow reads the first as seconds: `0 2 * * *` would run every hour.
"""

import re

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("second", 0, 59, {}),
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of month", 1, 31, {}),
    ("month", 1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    ("day of week", 0, 6, {name: number for number, name in enumerate(_DAYS)}),
)
_DESCRIPTORS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
_EVERY = re.compile(r"^@every ([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+$")
_PART = re.compile(r"^(?P<first>\*|\?|\w+)(-(?P<last>\w+))?(/(?P<step>[0-9]+))?$")


def check_cron(expression: str) -> None:
    """Raises ValueError with the field and its allowed values."""
    text = expression.strip()
    if text.startswith("@"):
        if text not in _DESCRIPTORS and not _EVERY.match(text):
            raise ValueError(f"{text!r}: must be one of {', '.join(_DESCRIPTORS)} or like '@every 12h'")
        return
    fields = text.split()
    if len(fields) == 5:
        raise ValueError(f"{text!r} has five fields, but Kubeflow expects six, seconds first: '0 {text}'")
    if len(fields) != len(_FIELDS):
        names = ", ".join(name for name, *_ in _FIELDS)
        raise ValueError(f"{text!r} has {len(fields)} fields, but Kubeflow expects six: {names}")
    for field, (name, smallest, largest, words) in zip(fields, _FIELDS, strict=True):
        for part in field.split(","):
            _check_part(part, name, smallest, largest, words)


def _check_part(part: str, name: str, smallest: int, largest: int, words: dict[str, int]) -> None:
    match = _PART.match(part)
    if not match:
        raise ValueError(f"{name}: {part!r} must look like 5, 1-5, * or */10")
    if match["step"] is not None and int(match["step"]) == 0:
        raise ValueError(f"{name}: the step in {part!r} must be at least 1")
    if match["first"] in ("*", "?"):
        if match["last"] is not None:
            raise ValueError(f"{name}: {part!r} must look like 5, 1-5, * or */10")
        return
    numbers = [_number(text, name, smallest, largest, words) for text in (match["first"], match["last"]) if text]
    if numbers[0] > numbers[-1]:
        raise ValueError(f"{name}: the range {part!r} runs backwards")


def _number(text: str, name: str, smallest: int, largest: int, words: dict[str, int]) -> int:
    number = words.get(text.lower(), int(text) if text.isascii() and text.isdigit() else None)
    if number is None or not smallest <= number <= largest:
        also = f" or {', '.join(words)}" if words else ""
        raise ValueError(f"{name}: {text!r} is not in {smallest}-{largest}{also}")
    return number
