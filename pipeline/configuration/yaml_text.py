"""Reads YAML so that text stays as it was typed: 007 is no number where a label is wanted, and no key is lost."""

import types
import typing
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel

_NULLS: Final = ("", "~", "null", "Null", "NULL")


class YamlError(ValueError):
    """The text is not usable YAML; the message says where and why."""


@dataclass(frozen=True)
class _Plain:
    """An unquoted scalar: what YAML makes of it, and the text itself."""

    value: Any
    text: str
    line: int


class _Loader(yaml.SafeLoader):
    """Keeps the text of unquoted scalars, and refuses a key that is given twice."""


def read_yaml(text: str, annotation: Any) -> Any:
    """The value of YAML `text` for a field of type `annotation`; raises YamlError."""
    try:
        loaded = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except RecursionError:
        raise YamlError("nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an invalid date
        raise YamlError(str(error)) from None
    return _resolved(loaded, annotation)


def literal_value(text: str, annotation: Any) -> Any:
    """The value that `--set` gives to a field: the text itself where the field is text, otherwise YAML."""
    if _accepts_text(annotation) and not _other_types(annotation) - {type(None)}:
        return None if text in _NULLS and type(None) in _other_types(annotation) else text
    return read_yaml(text, annotation)


def field_type(model: type[BaseModel], names: list[str]) -> Any:
    """The type of the field that `names` lead to from `model`; Any if there is none."""
    annotation: Any = model
    for name in names:
        annotation = _member(annotation, name)
    return annotation


def _construct_plain(loader: _Loader, node: yaml.ScalarNode) -> Any:
    value = _SAFE[node.tag](loader, node)
    return _Plain(value, node.value, node.start_mark.line + 1) if node.style is None else value


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        if name in lines and key.tag != "tag:yaml.org,2002:merge":
            raise YamlError(f"line {line}: '{name}' was already given in line {lines[name]}; merge the two")
        lines[name] = line
    loader.flatten_mapping(node)
    return {
        key.value if isinstance(key, yaml.ScalarNode) else str(key.value): loader.construct_object(value, deep=True)
        for key, value in node.value
    }


_SAFE: Final = dict(yaml.SafeLoader.yaml_constructors)
for _kind in ("int", "float", "bool", "timestamp"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _construct_plain)
_Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)


def _resolved(value: Any, annotation: Any) -> Any:
    if isinstance(value, dict):
        return {key: _resolved(inner, _member(annotation, key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [_resolved(inner, _item(annotation)) for inner in value]
    if not isinstance(value, _Plain):
        return value
    if _accepts_text(annotation) and type(value.value) not in _other_types(annotation):
        return value.text
    if type(value.value) is int and _is_ambiguous(value.text):
        raise YamlError(
            f"line {value.line}: {value.text} is {value.value} in YAML; write {value.value}, or the number without a "
            "leading zero or colon"
        )
    return value.value


def _is_ambiguous(number: str) -> bool:
    """Whether YAML reads an integer as octal or in base 60."""
    digits = number.lstrip("+-")
    return ":" in digits or (len(digits) > 1 and digits[0] == "0" and digits[1].isdigit())


def _alternatives(annotation: Any) -> list[Any]:
    """The types that a union allows, without `Annotated`."""
    origin = get_origin(annotation)
    if origin is typing.Annotated:
        return _alternatives(get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [inner for argument in get_args(annotation) for inner in _alternatives(argument)]
    return [annotation]


def _accepts_text(annotation: Any) -> bool:
    return any(
        kind is str or (get_origin(kind) is Literal and any(isinstance(option, str) for option in get_args(kind)))
        for kind in _alternatives(annotation)
    )


def _other_types(annotation: Any) -> set[Any]:
    """The types besides text that a field allows; a whole number is also a float."""
    found: set[Any] = set()
    for kind in _alternatives(annotation):
        if get_origin(kind) is Literal:
            found |= {type(option) for option in get_args(kind)} - {str}
        elif kind is not str:
            found.add(kind)
    return found | ({int} if float in found else set())


def _member(annotation: Any, key: str) -> Any:
    """The type of a mapping's or a section's value under `key`."""
    for kind in _alternatives(annotation):
        if get_origin(kind) is dict:
            return get_args(kind)[1]
        if isinstance(kind, type) and issubclass(kind, BaseModel) and key in kind.model_fields:
            return kind.model_fields[key].annotation
    return Any


def _item(annotation: Any) -> Any:
    """The type of a list's items."""
    for kind in _alternatives(annotation):
        if get_origin(kind) in (tuple, list, set, frozenset):
            return get_args(kind)[0]
    return Any
