"""Converts TensorProtos to validated NumPy arrays, and arrays to TensorProtos as TensorFlow Serving writes them."""

import math
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from serving.errors import invalid_argument
from serving.model.loaded_model import Arrays
from serving.model.prediction import Request

MAX_ELEMENTS = 2**26
"""A small message can declare any shape and a single value to fill it. 2^26 float32 elements are 256 MiB."""

_VALUE_FIELDS = {
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.int32: "int_val",
    tf.int16: "int_val",
    tf.int8: "int_val",
    tf.uint8: "int_val",
    tf.uint16: "int_val",
    tf.int64: "int64_val",
    tf.uint32: "uint32_val",
    tf.uint64: "uint64_val",
    tf.bool: "bool_val",
    tf.string: "string_val",
}
_WIRE_FORMAT = {np.dtype(kind.as_numpy_dtype): (kind.as_datatype_enum, field) for kind, field in _VALUE_FIELDS.items()}
_STRING = tf.string.as_datatype_enum


def request_from_proto(request: predict_pb2.PredictRequest) -> Request:
    """The Request in a PredictRequest; INVALID_ARGUMENT if a tensor is malformed."""
    inputs = {name: array_from_proto(name, proto) for name, proto in request.inputs.items()}
    return Request(inputs, request.model_spec.signature_name, tuple(request.output_filter))


def array_from_proto(name: str, proto: Any) -> np.ndarray[Any, Any]:
    """The array of the input `name`; INVALID_ARGUMENT if dtype, shape and values are inconsistent."""
    sizes = [dim.size for dim in proto.tensor_shape.dim]
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in sizes):
        raise invalid_argument(f"input {name}: the tensor's shape is not fully known")
    if math.prod(sizes) > MAX_ELEMENTS:
        raise invalid_argument(f"input {name}: shape {sizes} has more than {MAX_ELEMENTS} elements")
    if proto.dtype == _STRING and len(proto.string_val) == math.prod(sizes):  # images: skip the slower general path
        strings: np.ndarray[Any, Any] = np.array(proto.string_val, dtype=object)
        return strings.reshape(sizes)
    try:
        return np.asarray(tf.make_ndarray(proto))
    except (TypeError, ValueError, IndexError, KeyError, OverflowError) as error:
        raise invalid_argument(f"input {name}: not a valid tensor ({error})") from None


def response_to_proto(outputs: Arrays, model_spec: Any) -> predict_pb2.PredictResponse:
    """The PredictResponse with the `outputs` of the model in `model_spec`."""
    response = predict_pb2.PredictResponse(model_spec=model_spec)
    for name, array in outputs.items():
        fill_proto(response.outputs[name], array)
    return response


def fill_proto(proto: Any, array: np.ndarray[Any, Any]) -> None:
    """Write `array` to the value field of a TensorProto, as TensorFlow Serving does, not as packed content.

    This way clients that read `float_val` and the like work with either server.
    """
    known = _WIRE_FORMAT.get(array.dtype)
    if known is None:
        proto.CopyFrom(tf.make_tensor_proto(array))
        return
    proto.dtype, field = known
    proto.tensor_shape.SetInParent()
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    getattr(proto, field).extend(array.ravel().tolist())
