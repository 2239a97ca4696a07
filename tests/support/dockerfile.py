"""Parses the parts of deploy/Dockerfile that the tests need."""

import re

from repository import REPOSITORY

DOCKERFILE = REPOSITORY / "deploy" / "Dockerfile"


TFX_116 = {"PYTHON": "3.10", "DEBIAN": "bookworm", "LOCKS": "-tfx1.16"}
"""Arguments of a build for TFX 1.16."""


def instructions(**given: str) -> list[tuple[str, str]]:
    """(instruction, arguments) pairs, with continued lines joined, comments removed, and build arguments inserted.

    `given` are build arguments, as in --build-arg; the others have their defaults. An ARG itself is left out.
    """
    lines = [line for line in DOCKERFILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    pairs = [line.partition(" ")[::2] for line in joined.splitlines() if line.strip()]
    defaults = dict(text.split("=", 1) for name, text in pairs if name == "ARG" and "=" in text)
    values = {**defaults, **given}
    inserted = ((name, re.sub(r"\$\{(\w+)\}", lambda found: values[found[1]], text)) for name, text in pairs)
    return [(name, text.strip()) for name, text in inserted if name != "ARG"]


def stages(**given: str) -> dict[str, list[tuple[str, str]]]:
    """The instructions of each build stage in order, including its FROM; `given` as in `instructions`."""
    found: dict[str, list[tuple[str, str]]] = {}
    for instruction, arguments in instructions(**given):
        if instruction == "FROM":
            found[arguments.split(" AS ")[1]] = []
        list(found.values())[-1].append((instruction, arguments))
    return found


def copied_from_repository(stage: str, **given: str) -> list[tuple[str, str]]:
    """(source, destination) of each file or folder that a stage copies from the build context."""
    copies = []
    for instruction, arguments in stages(**given)[stage]:
        if instruction == "COPY" and not arguments.startswith("--from="):
            *sources, destination = arguments.split()
            copies += [(source, destination) for source in sources]
    return copies
