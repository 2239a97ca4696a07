"""The base class of all sections of the configuration."""

import ast
import inspect
import textwrap
from typing import Any

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """An immutable section that rejects unknown keys; the string below a field is its description in JSON schemas.

    What a mistyped key or `--help` does not need is left until it is needed: validators and descriptions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

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
