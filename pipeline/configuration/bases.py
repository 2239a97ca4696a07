"""Reads a configuration file and its bases: each file states only what differs from its own base."""

import os
from pathlib import Path
from typing import Any, Final

from pipeline.configuration.configuration import Configuration, ConfigurationError
from pipeline.configuration.yaml_text import read_yaml
from runtime.did_you_mean import did_you_mean

Values = dict[str, Any]
Origins = dict[tuple[str, ...], str]
"""The file that states each value, by the names that lead to it, such as `("trainer", "epochs")`."""

_BASE: Final = "base"
_INSTEAD: Final = (
    "write a configuration for your images with `autoencoder init FOLDER`, or state `data: {source: digits}` for the "
    "digits that come with this program"
)
_HINT: Final = "; give your own (autoencoder run my.yaml), or see configs/ in the source repository for examples"


def read_with_bases(path: Path) -> tuple[Values, Origins]:
    """The values that a file and its bases state, and which of them states each; raises ConfigurationError.

    Sections and mappings are merged; any other value, such as a list, replaces that of the base.
    """
    values: Values = {}
    origins: Origins = {}
    for place, stated in reversed(_chain(path)):
        _merge(values, stated, origins, str(place))
    return values, origins


def record_origin(origins: Origins, names: tuple[str, ...], value: Any, origin: str) -> None:
    """Record that `origin` states the value that `names` lead to, and all values inside it."""
    for known in [known for known in origins if known[: len(names)] == names or names[: len(known)] == known]:
        del origins[known]
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            record_origin(origins, (*names, name), inner, origin)
    else:
        origins[names] = origin


def _chain(path: Path) -> list[tuple[Path, Values]]:
    """The file, its base, the base's base, and so on, with what each states."""
    chain: list[tuple[Path, Values]] = []
    seen: set[str] = set()
    stated_by = ""
    next_path: Path | None = path
    while next_path is not None:
        place, next_path = next_path, None
        seen.add(os.path.realpath(place))
        values = _read_file(place, stated_by)
        chain.append((place, values))
        if (base := values.pop(_BASE, None)) is None:
            continue
        if not isinstance(base, str) or not base:
            raise ConfigurationError(f"{place}: base: {base!r}: must be the path of one configuration file")
        stated_by = f"{place}: base {base}: "
        next_path = place.parent / Path(base).expanduser()
        if os.path.realpath(next_path) in seen:
            files = " -> ".join(str(file) for file in (*(file for file, _ in chain), next_path))
            raise ConfigurationError(f"{stated_by}the bases form a circle ({files}); remove one of them")
    return chain


def _merge(values: Values, stated: Values, origins: Origins, origin: str, names: tuple[str, ...] = ()) -> None:
    """Change `values` to what `stated` says."""
    for name, value in stated.items():
        place = (*names, name)
        if isinstance(value, dict) and isinstance(values.get(name), dict):
            _merge(values[name], value, origins, origin, place)
        else:
            values[name] = value
            record_origin(origins, place, value, origin)


def _read_file(path: Path, stated_by: str) -> Values:
    """What one file states; `stated_by` begins the message about a base that does not exist."""
    try:
        values = read_yaml(path.read_text(encoding="utf-8"), Configuration)
    except FileNotFoundError:
        files = [p.name for p in path.parent.glob("*.yaml")]
        hint = did_you_mean(path.name, files, "" if stated_by else _HINT)
        raise ConfigurationError(f"{stated_by}{path}: no such configuration file{hint}") from None
    except OSError as error:
        raise ConfigurationError(f"{stated_by}{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:  # YamlError, or not UTF-8
        raise ConfigurationError(f"{path}: is not valid YAML: {error}") from None
    if values is None:
        raise ConfigurationError(f"{stated_by}{path}: is empty; {_INSTEAD}")
    if not isinstance(values, dict):
        raise ConfigurationError(f"{path}: must be a mapping of sections (data:, trainer: ...), but is {values!r}")
    return values
