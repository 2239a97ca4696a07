"""Loads the configuration from a YAML file and overrides from the command line."""

import difflib
import re
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from pipeline.configuration.configuration import Configuration, ConfigurationError
from pipeline.configuration.yaml_text import YamlError, field_type, literal_value, read_yaml

_HINT = "; give your own (autoencoder run my.yaml), or see configs/ in the source repository for examples"


def load_configuration(path: Path, overrides: tuple[str, ...] = ()) -> Configuration:
    """Read a YAML file and apply `section.field=value` overrides.

    An override is taken literally where the field is text, and is YAML elsewhere.

    Raises ConfigurationError for an unreadable file, an unknown key, a wrong type or an impossible combination.
    """
    values = read_values(path, overrides)
    try:
        return Configuration.model_validate(values)
    except ValidationError as error:
        raise ConfigurationError("\n".join(_explain(path, e) for e in error.errors())) from None


def read_values(path: Path, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    """The values in the file and the overrides, without defaults; ConfigurationError if they cannot be read."""
    values = _read_yaml(path)
    for override in overrides:
        _apply_override(values, override)
    return values


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = read_yaml(path.read_text(encoding="utf-8"), Configuration)
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.yaml")], n=1)
        hint = f"; did you mean {path.parent / near[0]}?" if near else _HINT
        raise ConfigurationError(f"{path}: no such configuration file{hint}") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:  # YamlError, or not UTF-8
        raise ConfigurationError(f"{path}: is not valid YAML: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigurationError(f"{path}: must be a mapping of sections (data:, trainer: ...), but is {values!r}")
    return values


def _apply_override(values: dict[str, Any], override: str) -> None:
    dotted, separator, text = override.partition("=")
    if not separator or not dotted:
        raise ConfigurationError(f"--set {override}: must look like trainer.latent_dim=16")
    names = dotted.split(".")
    *sections, field = names
    for section in sections:
        inner = values.setdefault(section, {})
        if inner is None:
            inner = values[section] = {}
        if not isinstance(inner, dict):
            raise ConfigurationError(f"--set {override}: '{section}' holds {inner!r}, not a section")
        values = inner
    try:
        values[field] = literal_value(text, field_type(Configuration, names))
    except YamlError:
        raise ConfigurationError(f"--set {override}: {text!r} is not a valid YAML value") from None


def _explain(path: Path, error: Any) -> str:
    """One sentence: file, field, value, what is wrong, and the closest valid key."""
    field = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{path}: unknown key '{field}'{_nearest_key(error['loc'])}"
    message = re.sub(
        r"^(Value error, |\w+ should )", lambda start: "must " if "should" in start[0] else "", error["msg"]
    )
    if error["type"] == "value_error":
        return f"{path}: {message}"
    if field == "name" and error["type"] == "string_pattern_mismatch":
        message = "must consist of lower-case letters, digits, '-' and '_', and start with a letter or a digit"
    if error["type"] == "tuple_type":
        message = f"must be a list, such as [{error['input']}]"
    if error["type"] == "literal_error":
        expected = error["ctx"]["expected"]
        options = [word.strip("'") for word in expected.replace(" or ", ", ").split(", ")]
        near = difflib.get_close_matches(str(error["input"]), options, n=1)
        message = f"must be one of {expected}" + (f"; did you mean '{near[0]}'?" if near else "")
    return f"{path}: {field}: {error['input']!r}: {message}"


def _nearest_key(location: tuple[Any, ...]) -> str:
    model: Any = Configuration
    for part in location[:-1]:
        if part not in model.model_fields:  # an index of a list, or a key of a mapping, such as a component's name
            continue
        annotation = model.model_fields[part].annotation
        model = next((a for a in (annotation, *get_args(annotation)) if hasattr(a, "model_fields")), None)
        if model is None:
            return ""
    keys = list(model.model_fields)
    near = difflib.get_close_matches(str(location[-1]), keys, n=1)
    return f"; did you mean '{near[0]}'?" if near else f"; valid keys: {', '.join(keys)}"
