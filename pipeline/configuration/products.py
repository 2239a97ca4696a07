"""Loads the configurations of several products, which must not overwrite each other."""

from collections.abc import Iterable
from pathlib import Path

from pipeline.configuration.configuration import Configuration, ConfigurationError
from pipeline.configuration.loading import load_configuration


def load_products(paths: Iterable[Path], overrides: tuple[str, ...]) -> list[Configuration]:
    """The configurations of several products, in order.

    Raises ConfigurationError with all mistakes in all files, or if two products would overwrite each other.
    """
    loaded: dict[Path, Configuration] = {}
    mistakes = []
    for path in paths:
        try:
            loaded[path] = load_configuration(path, overrides)
        except ConfigurationError as error:
            mistakes.append(str(error))
    owners: dict[str, Path] = {}
    for path, configuration in loaded.items():
        for field, place in _places_written_by(configuration).items():
            if (owner := owners.setdefault(place, path)) != path:
                mistakes.append(f"{path}: {field}: {place} belongs to {owner}; give each product its own")
    if mistakes:
        raise ConfigurationError("\n".join(mistakes))
    return list(loaded.values())


def _places_written_by(configuration: Configuration) -> dict[str, str]:
    places = {"name": str(Path(configuration.root).expanduser().absolute() / configuration.name)}
    if configuration.push.destination:
        places["push.destination"] = configuration.push.destination.rstrip("/")
    return places
