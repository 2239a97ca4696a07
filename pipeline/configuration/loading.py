"""Loads the configuration from a YAML file, its bases, and overrides from the command line."""

import re
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from pipeline.configuration.bases import Origins, Values, read_with_bases, record_origin
from pipeline.configuration.configuration import Configuration, ConfigurationError
from pipeline.configuration.yaml_text import YamlError, field_type, literal_value
from runtime.did_you_mean import did_you_mean


def load_configuration(path: Path, overrides: tuple[str, ...] = ()) -> Configuration:
    """Read a YAML file with its bases, and apply `section.field=value` overrides.

    An override is taken literally where the field is text, and is YAML elsewhere.

    Raises ConfigurationError for an unreadable file, an unknown key, a wrong type or an impossible combination.
    """
    values, origins = _read(path, overrides)
    try:
        return Configuration.model_validate(values)
    except ValidationError as error:
        raise ConfigurationError("\n".join(_explain(path, origins, e) for e in error.errors())) from None


def read_values(path: Path, overrides: tuple[str, ...] = ()) -> Values:
    """The values in the file, its bases and the overrides, without defaults; raises ConfigurationError."""
    return _read(path, overrides)[0]


def _read(path: Path, overrides: tuple[str, ...]) -> tuple[Values, Origins]:
    values, origins = read_with_bases(path)
    for override in overrides:
        _apply_override(values, origins, override)
    return values, origins


def _apply_override(values: Values, origins: Origins, override: str) -> None:
    dotted, separator, text = override.partition("=")
    if not separator or not dotted:
        raise ConfigurationError(f"--set {override}: must look like trainer.latent_dim=16")
    if dotted == "base":
        raise ConfigurationError(f"--set {override}: only a configuration file can name its base")
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
    record_origin(origins, tuple(names), values[field], "--set")


def _explain(given: Path, origins: Origins, error: Any) -> str:
    """One sentence: the file that states the value, field, value, what is wrong, and the closest valid key."""
    field = ".".join(str(part) for part in error["loc"])
    path = _origin(origins, tuple(str(part) for part in error["loc"]), error["msg"]) or given
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
        message = f"must be one of {expected}{did_you_mean(str(error['input']), options)}"
    return f"{path}: {field}: {error['input']!r}: {message}"


def _origin(origins: Origins, location: tuple[str, ...], message: str) -> str:
    """The files that state what an error is about; empty if none does.

    An error about several fields has their section as its location, and names the fields in its message.
    """
    inside = {
        names: origin
        for names, origin in origins.items()
        if all(name == part for name, part in zip(names, location, strict=False))
    }
    words = set(re.findall(r"[\w.]+", message))
    named = [origin for names, origin in inside.items() if ".".join(names) in words]
    if not named:
        named = [origin for names, origin in inside.items() if len(names) > len(location) and names[-1] in words]
    return " and ".join(dict.fromkeys(named or inside.values()))


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
    return did_you_mean(str(location[-1]), keys, f"; valid keys: {', '.join(keys)}")
