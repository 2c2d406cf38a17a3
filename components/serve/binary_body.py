"""REST bodies of the protocol's binary extension: JSON, and behind it the tensors' contents as they are in gRPC."""

from __future__ import annotations

from typing import Any

import kserve
from grpc_interceptor import exceptions as grpc_errors
from pydantic import BaseModel, ValidationError

from components.serve.tensors import shortened

LENGTH_HEADER = "inference-header-content-length"
_SIZE = "binary_data_size"


class _Input(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] | None = None
    data: list[Any] | None = None


class _Body(BaseModel):
    inputs: list[_Input]
    id: str | None = None
    parameters: dict[str, Any] | None = None


def read_binary_body(body: bytes, json_length: str | None, model: str) -> kserve.InferRequest:
    """A request; contents are not decoded: that is done when they are known to fit their shapes.

    Args:
        body: As it came.
        json_length: Its header `Inference-Header-Content-Length`: bytes of JSON.
        model: The model's name.

    Raises:
        InvalidArgument: Naming what is wrong.
    """
    if json_length is None:
        raise _invalid(f"a body that is not JSON needs the header {LENGTH_HEADER}, the length of the JSON in it")
    length = int(json_length) if json_length.isascii() and json_length.isdigit() and len(json_length) < 20 else -1
    if not 0 <= length <= len(body):
        raise _invalid(f"{LENGTH_HEADER} {json_length[:40]!r}: must be a number up to the body's {len(body)} bytes")
    try:
        read = _Body.model_validate_json(body[:length])
    except ValidationError as error:
        first = error.errors()[0]
        raise _invalid(f"{'.'.join(map(str, first['loc'])) or 'the body'}: {first['msg']}") from None
    inputs, at = [], length
    for described in read.inputs:
        found = kserve.InferInput(described.name, described.shape, described.datatype)
        size = (described.parameters or {}).get(_SIZE)
        if described.data is not None:
            found.data = described.data
        elif type(size) is not int or not 0 <= size <= len(body) - at:
            raise _invalid(
                f"input {described.name!r}: {_SIZE} is {str(size)[:40]}, bytes left: {len(body) - at}; give data, or it"
            )
        else:
            found._raw_data, at = body[at : at + size], at + size
        inputs.append(found)
    if at != len(body):
        raise _invalid(f"{len(body) - at} bytes follow the contents of all inputs; check each {_SIZE}")
    return kserve.InferRequest(model, inputs, read.id, parameters=read.parameters)


def _invalid(text: str) -> grpc_errors.InvalidArgument:
    return grpc_errors.InvalidArgument(shortened(text))
