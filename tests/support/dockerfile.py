"""Parses the parts of deploy/Dockerfile that the tests need."""

import re

from repository import REPOSITORY

DOCKERFILE = REPOSITORY / "deploy" / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments) pairs, with continued lines joined and comments removed."""
    lines = [line for line in DOCKERFILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    pairs = (line.partition(" ") for line in joined.splitlines() if line.strip())
    return [(instruction, arguments.strip()) for instruction, _, arguments in pairs]


def stages() -> dict[str, list[tuple[str, str]]]:
    """The instructions of each build stage in order, including its FROM."""
    found: dict[str, list[tuple[str, str]]] = {}
    for instruction, arguments in instructions():
        if instruction == "FROM":
            found[arguments.split(" AS ")[1]] = []
        list(found.values())[-1].append((instruction, arguments))
    return found


def copied_from_repository(stage: str) -> list[tuple[str, str]]:
    """(source, destination) of each file or folder that a stage copies from the build context."""
    copies = []
    for instruction, arguments in stages()[stage]:
        if instruction == "COPY" and not arguments.startswith("--from="):
            *sources, destination = arguments.split()
            copies += [(source, destination) for source in sources]
    return copies
