"""The base class of all sections of the configuration."""

import ast
import inspect
import textwrap
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """An immutable section that rejects unknown keys; the string below a field is its description in JSON schemas.

    What a mistyped key or `--help` does not need is left until it is needed: validators and descriptions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_booleans_as_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """Python counts True as 1, and YAML reads `yes`, `no`, `on` and `off` as booleans."""
        if _holds_boolean(value):
            kinds = _kinds(cls.model_fields[str(info.field_name)].annotation)
            if kinds & {int, float} and bool not in kinds:
                raise PydanticCustomError(
                    "boolean_as_number",
                    "must be a number, but YAML reads yes, no, on, off, true and false as booleans; write a number",
                )
        return value

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> dict[str, Any]:
        """Pydantic's schema with descriptions; its own `use_attribute_docstrings` reads the source at every import."""
        schema: dict[str, Any] = handler(core_schema)
        fields = handler.resolve_ref_schema(schema).get("properties", {})
        for section in reversed(cls.__mro__):
            if issubclass(section, Section):
                for name, text in _texts_below_fields(section).items():
                    fields[name]["description"] = text
        return schema


def _holds_boolean(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_boolean, value.values()))
    return any(map(_holds_boolean, value)) if isinstance(value, list | tuple) else isinstance(value, bool)


def _kinds(annotation: Any) -> set[Any]:
    """The types inside an annotation, and of the values that it allows."""
    if get_origin(annotation) is Literal:
        return {type(option) for option in get_args(annotation)}
    return {annotation}.union(*map(_kinds, get_args(annotation)))


def _texts_below_fields(section: type) -> dict[str, str]:
    """Field -> the string below it."""
    [definition] = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for statement, following in zip(definition.body, definition.body[1:], strict=False):
        match statement, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = inspect.cleandoc(text)
    return found
