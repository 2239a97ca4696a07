"""Converts TensorFlow Serving's JSON, in row (`instances`) or columnar (`inputs`) form, to arrays and back.

Follows https://www.tensorflow.org/tfx/serving/api_rest: bytes are `{"b64": "..."}`, NaN and infinities the bare
words NaN, Infinity and -Infinity, and a float32 is the shortest decimal that reads back as the same value.
"""

import base64
import binascii
import json
from collections.abc import Callable
from enum import Enum
from itertools import chain
from typing import Any

import numpy as np
import orjson

from serving.errors import ServingError, invalid_argument
from serving.model.loaded_model import Arrays, Signature
from serving.model.prediction import Request

Array = np.ndarray[Any, Any]
MAX_QUOTED_CHARS = 200
_NO_WHITE_SPACE = str.maketrans("", "", " \t\n\v\f\r")


class Form(Enum):
    """The layout of a request and its answer: one object per instance, or one array per output."""

    ROW = "instances"
    COLUMNAR = "inputs"


def request_from_json(body: bytes, signature_named: Callable[[str], Signature]) -> tuple[Request, Form]:
    """The request in a `:predict` body; INVALID_ARGUMENT if it does not match the signature."""
    document = _parsed(body)
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid_argument(
            f"JSON Value: {_quoted(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    try:
        signature = signature_named(name)
    except ServingError:
        shown = name or "serving_default"
        raise invalid_argument(f'Serving signature name: "{shown}" not found in signature def') from None
    if "instances" in document and "inputs" in document:
        raise invalid_argument("Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist")
    if "instances" in document:
        return Request(_from_rows(document["instances"], signature), name), Form.ROW
    if "inputs" in document:
        return Request(_from_columns(document["inputs"], signature), name), Form.COLUMNAR
    raise invalid_argument("Missing 'inputs' or 'instances' key")


def answer_to_json(outputs: Arrays, form: Form) -> bytes:
    """The body of the answer: `predictions` for rows, `outputs` for columns; a single output is not named."""
    values = {name: _to_values(name, array) for name, array in sorted(outputs.items())}
    is_finite = all(np.isfinite(array).all() for array in outputs.values() if array.dtype.kind == "f")
    if form is Form.COLUMNAR:
        columns = values if len(values) > 1 else next(iter(values.values()))
        return _dumped({"outputs": columns}, is_finite=is_finite)
    sizes = {name: array.shape[0] if array.ndim else None for name, array in outputs.items()}
    if None in sizes.values() or len(set(sizes.values())) > 1:
        raise invalid_argument(f"outputs have no common batch size, so they cannot be written as rows: {sizes}")
    if len(values) == 1:
        return _dumped({"predictions": next(iter(values.values()))}, is_finite=is_finite)
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    return _dumped({"predictions": rows}, is_finite=is_finite)


def array_from_values(name: str, value: object, dtype: np.dtype[Any]) -> Array:
    """The array for nested JSON lists; INVALID_ARGUMENT if they are ragged or not of type `dtype`."""
    shape, leaves = _flattened(name, value)
    if dtype.kind == "O":
        array: Array = np.empty(len(leaves), dtype=object)
        array[:] = [_bytes_of(name, leaf) for leaf in leaves]
    elif dtype.kind == "f":
        array = _floats(name, leaves, dtype)
    elif dtype.kind in "iu":
        array = _integers(name, leaves, dtype)
    elif dtype.kind == "b":
        _require(name, leaves, {bool}, dtype)
        array = np.array(leaves, dtype=dtype)
    else:
        raise invalid_argument(f"input {name}: JSON cannot represent values of type {dtype}")
    return array.reshape(shape)


def _parsed(body: bytes) -> dict[str, Any]:
    if not body:
        raise invalid_argument("JSON Parse error: The document is empty")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = _parsed_leniently(body)
    if not isinstance(document, dict):
        raise invalid_argument(f"JSON Value: {_quoted(document)} Is not object")
    return document


def _parsed_leniently(body: bytes) -> Any:
    """Accepts the bare words NaN and Infinity and a byte order mark, which orjson does not."""
    try:
        return json.loads(body.decode("utf-8-sig"))
    except RecursionError:
        raise invalid_argument("JSON Parse error: nested too deeply") from None
    except ValueError as error:
        raise invalid_argument(f"JSON Parse error: {error}") from None


def _from_rows(instances: object, signature: Signature) -> Arrays:
    if not isinstance(instances, list):
        raise invalid_argument("Expecting 'instances' to be an list/array")
    if not instances:
        raise invalid_argument("No values in 'instances' array")
    are_named = _is_named(instances[0])
    if not are_named and len(signature.inputs) > 1:
        raise invalid_argument(
            "instances is a plain list, but expecting list of objects as multiple "
            "input tensors required as per tensorinfo_map"
        )
    for index, instance in enumerate(instances):
        if _is_named(instance) != are_named:
            wanted, got = ("object", "value/list") if are_named else ("value/list", "object")
            raise invalid_argument(f"Expecting {wanted} but got {got} at item {index} of input list")
        if are_named and instance.keys() != signature.inputs.keys():
            raise invalid_argument(
                f"Failed to process element: {index} of 'instances' list. JSON object: {_quoted(instance)} "
                f"keys must be equal to: {','.join(sorted(signature.inputs))}"
            )
    return {
        name: array_from_values(name, [i[name] for i in instances] if are_named else instances, info.dtype)
        for name, info in signature.inputs.items()
    }


def _from_columns(inputs: object, signature: Signature) -> Arrays:
    if not _is_named(inputs):
        if len(signature.inputs) > 1:
            raise invalid_argument(
                "inputs is a plain value/list, but expecting an object as multiple "
                "input tensors required as per tensorinfo_map"
            )
        inputs = dict.fromkeys(signature.inputs, inputs)
    assert isinstance(inputs, dict)
    for name in signature.inputs:
        if name not in inputs:
            raise invalid_argument(f"Missing named input: {name} in 'inputs' object.")
    return {name: array_from_values(name, inputs[name], info.dtype) for name, info in signature.inputs.items()}


def _is_named(value: object) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _is_base64(value: object) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def _flattened(name: str, value: object) -> tuple[list[int], list[Any]]:
    """The shape and the leaves of nested lists, found level by level: recursion would limit the depth."""
    shape: list[int] = []
    level = [value]
    while list in (kinds := set(map(type, level))):
        if len(kinds) > 1:
            raise invalid_argument(f"input {name}: values and lists at the same level {len(shape)}")
        sizes = set(map(len, level))  # type: ignore[arg-type]
        if len(sizes) > 1:
            raise invalid_argument(f"input {name}: lists of unequal sizes {sorted(sizes)[:2]} at level {len(shape)}")
        shape.append(sizes.pop())
        if len(shape) > 32:
            raise invalid_argument(f"input {name}: lists nested more than 32 deep")
        level = list(chain.from_iterable(level))  # type: ignore[arg-type]
    return shape, level


def _floats(name: str, leaves: list[Any], dtype: np.dtype[Any]) -> Array:
    _require(name, leaves, {int, float}, dtype)
    limits = np.finfo(dtype)
    try:
        wide = np.array(leaves, dtype=np.float64)
    except OverflowError:
        raise invalid_argument(f"Cannot convert a JSON value of input {name} to {dtype}: too large") from None
    lossy = np.isfinite(wide) & (np.abs(wide) > float(limits.max))
    if lossy.any():
        value = leaves[int(np.argmax(lossy))]
        raise invalid_argument(
            f"Cannot convert JSON value: {_quoted(value)} to {_name(dtype)} without loss of precision."
        )
    return wide.astype(dtype)


def _integers(name: str, leaves: list[Any], dtype: np.dtype[Any]) -> Array:
    _require(name, leaves, {int}, dtype)
    limits = np.iinfo(dtype)
    for value in (min(leaves, default=0), max(leaves, default=0)):
        if not limits.min <= value <= limits.max:
            raise _type_error(value, dtype)
    return np.array(leaves, dtype=dtype)


def _require(name: str, leaves: list[Any], kinds: set[type], dtype: np.dtype[Any]) -> None:
    if set(map(type, leaves)) <= kinds:
        return
    raise _type_error(next(leaf for leaf in leaves if type(leaf) not in kinds), dtype)


def _bytes_of(name: str, leaf: object) -> bytes:
    try:
        if isinstance(leaf, str):
            return leaf.encode()
        if isinstance(leaf, dict) and _is_base64(leaf):
            # TensorFlow Serving skips white space, and needs no padding.
            text = leaf["b64"].translate(_NO_WHITE_SPACE)
            return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise invalid_argument(f"input {name}: Unable to base64 decode") from None
    if isinstance(leaf, dict):
        raise invalid_argument(f"JSON Value: {_quoted(leaf)} not formatted correctly for base64 data")
    raise _type_error(leaf, np.dtype(object))


def _type_error(value: object, dtype: np.dtype[Any]) -> ServingError:
    kinds = {str: "String", dict: "Object", list: "Array", type(None): "Null"}
    kind = str(value) if isinstance(value, bool) else kinds.get(type(value), "Number")
    return invalid_argument(f"JSON Value: {_quoted(value)} Type: {kind} is not of expected type: {_name(dtype)}")


def _name(dtype: np.dtype[Any]) -> str:
    """TensorFlow's name for it."""
    return {"object": "string", "float32": "float", "float64": "double"}.get(str(dtype), str(dtype))


def _quoted(value: object) -> str:
    try:
        text = json.dumps(value)
    except RecursionError:  # orjson accepts deeper nesting than Python's encoder
        return "(nested too deeply to show)"
    return text if len(text) <= MAX_QUOTED_CHARS else f"{text[:MAX_QUOTED_CHARS]}..."


def _to_values(name: str, array: Array) -> Any:
    """A value that `_dumped` can write: nested lists of strings, or the numeric array itself."""
    if array.dtype.kind != "O":
        return np.ascontiguousarray(array) if array.ndim else array[()]
    out: Array = np.empty(array.size, dtype=object)
    if name.endswith("_bytes"):
        out[:] = [{"b64": base64.b64encode(data).decode()} for data in array.flat]
    else:
        out[:] = [data.decode("utf-8", errors="replace") for data in array.flat]
    return out.reshape(array.shape).tolist()


def _dumped(document: dict[str, Any], *, is_finite: bool) -> bytes:
    """`document`, whose leaves may be NumPy arrays and scalars, as JSON."""
    if is_finite:  # orjson writes NaN as null
        try:
            return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
        except TypeError:
            pass  # a type unknown to orjson, such as bfloat16
    return json.dumps(document, default=_plain).encode()


def _plain(value: Any) -> Any:
    array = np.asarray(value)
    if array.dtype.kind == "f":
        # The text of a float32 is its shortest decimal; as a Python float it would have noise digits.
        array = np.array([float(text) for text in map(str, array.ravel())]).reshape(array.shape)
    return array.tolist()
