"""Tensors of the Open Inference Protocol v2 as NumPy arrays, and JSON requests as tensors."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from components.common.errors import InputError
from components.serve.protocol import pb
from components.version.wire_names import ACTION_PREFIX, LENGTHS_SUFFIX, VALID_SUFFIX

_DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "INT64": np.dtype(np.int64),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
}
_DATATYPES = {dtype: name for name, dtype in _DTYPES.items()} | {np.dtype(object): "BYTES"}
_MAX_DIMENSIONS, _MAX_SIZE = 4, 2**31
_PARTS = ("user", "candidates", "actions")
_MAX_MESSAGE = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def shortened(text: str) -> str:
    """A message that fits a gRPC status, whatever it quotes."""
    return text if len(text) <= _MAX_MESSAGE else f"{text[:_MAX_MESSAGE]}..."


def infer_request(model: str, version: str, arrays: Mapping[str, np.ndarray]) -> pb.ModelInferRequest:
    """A request with raw contents; arrays of objects hold bytes."""
    request = pb.ModelInferRequest(model_name=model, model_version=version)
    _add(request.inputs, request.raw_input_contents, arrays)
    return request


def infer_response(model: str, version: str, arrays: Mapping[str, np.ndarray]) -> pb.ModelInferResponse:
    """An answer with raw contents."""
    response = pb.ModelInferResponse(model_name=model, model_version=version)
    _add(response.outputs, response.raw_output_contents, arrays)
    return response


def _add(tensors: Any, contents: Any, arrays: Mapping[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        tensors.add(name=name, datatype=_DATATYPES[array.dtype], shape=array.shape)
        contents.append(_bytes_of(array))


def arrays_of(tensors: Iterable[Any], contents: Sequence[bytes]) -> dict[str, np.ndarray]:
    """Arrays by name of a message's raw contents; those of BYTES are of dtype object.

    Raises:
        InputError: Naming the tensor that is not what its description says.
    """
    described = list(tensors)
    if len(described) != len(contents):
        raise InputError(f"{len(described)} tensors, but {len(contents)} raw contents; send raw contents for each")
    arrays: dict[str, np.ndarray] = {}
    for tensor, content in zip(described, contents, strict=True):
        if tensor.name in arrays:
            raise InputError(f"tensor {tensor.name!r} is there twice")
        arrays[tensor.name] = array_of(tensor.name, tensor.datatype, list(tensor.shape), content)
    return arrays


def array_of(name: str, datatype: str, shape: list[int], content: bytes) -> np.ndarray:
    """One tensor's array.

    Raises:
        InputError: If its contents are not what the rest says.
    """
    if len(shape) > _MAX_DIMENSIONS or not all(0 <= size <= _MAX_SIZE for size in shape):
        raise InputError(
            f"tensor {name!r} has shape {shape[:_MAX_DIMENSIONS]}: at most {_MAX_DIMENSIONS} dimensions, each from 0 "
            f"to {_MAX_SIZE}"
        )
    expected = math.prod(shape)
    if datatype == "BYTES":
        texts = np.array([*_texts(name, content, expected), None], dtype=object)[:-1]
        num_values = len(texts)
    else:
        dtype = _DTYPES.get(datatype)
        if dtype is None:
            raise InputError(f"tensor {name!r} has datatype {datatype!r}; known are {[*_DTYPES, 'BYTES']}")
        if len(content) % dtype.itemsize:
            raise InputError(
                f"tensor {name!r} has {len(content)} bytes, no multiple of the {dtype.itemsize} of {datatype}"
            )
        texts = np.frombuffer(content, dtype)
        num_values = len(texts)
    if num_values != expected:
        raise InputError(f"tensor {name!r} has {num_values} values, its shape {shape} says {expected}")
    # A size of 0 beside large ones is more than NumPy takes.
    return texts.reshape(shape) if num_values else np.empty([min(size, 1) for size in shape], dtype=texts.dtype)


def _texts(name: str, content: bytes, expected: int) -> list[bytes]:
    """Of BYTES: each is its length, four bytes, and its bytes; one more than expected ends it."""
    texts: list[bytes] = []
    place = 0
    while place < len(content) and len(texts) <= expected:
        end = place + 4
        if end <= len(content):
            end += struct.unpack_from("<I", content, place)[0]
        if end > len(content) or end < place + 4:
            raise InputError(f"tensor {name!r} ends within a value; BYTES are a length of four bytes and as many bytes")
        texts.append(content[place + 4 : end])
        place = end
    return texts


def _bytes_of(array: np.ndarray) -> bytes:
    if array.dtype == object:
        return b"".join(struct.pack("<I", len(value)) + value for value in array.flat)
    return array.tobytes()


def request_tensors(request: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Tensors of a request as JSON has it.

    Args:
        request: `user`, an object; `candidates` and `actions`, lists of objects, a value or null for each column.
            Moments are ISO 8601 with a time zone, or microseconds since 1970.

    Raises:
        InputError: Naming the part, the column and the value.
    """
    given = list(request) if isinstance(request, Mapping) else type(request).__name__
    if not isinstance(request, Mapping) or not set(request) <= set(_PARTS) or "user" not in request:
        raise InputError(f"a request is an object of {list(_PARTS)}, found {given}")
    tensors: dict[str, np.ndarray] = {}
    for part in _PARTS:
        rows = request.get(part, [])
        rows = [rows] if part == "user" else rows
        if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
            raise InputError(f"{part}: expected {'an object' if part == 'user' else 'a list of objects'}")
        prefix = ACTION_PREFIX if part == "actions" else ""
        for column in dict.fromkeys(name for row in rows for name in row):
            values = [row.get(column) for row in rows]
            tensors |= _column_tensors(prefix + column, column, values, f"{part}: {column}")
    return tensors


def _column_tensors(name: str, column: str, values: list[Any], where: str) -> dict[str, np.ndarray]:
    if column == "timestamp":
        return {name: np.array([microseconds(value, where) for value in values], dtype=np.int64)}
    if any(isinstance(value, list) for value in values):
        return _list_tensors(name, values, where)
    there = np.array([value is not None for value in values])
    known = {type(value) for value in values if value is not None}
    if known == {str}:
        array = texts_array([value or "" for value in values], where)
    elif known == {int}:
        array = _integers([value or 0 for value in values], where)
    elif known and known <= {int, float}:
        try:
            return {name: np.array([np.nan if value is None else float(value) for value in values])}
        except OverflowError as error:
            raise InputError(f"{where}: a number is beyond 64 bits") from error
    elif known:
        shown = ", ".join(sorted(kind.__name__ for kind in known))
        raise InputError(f"{where}: values must be all text or all numbers, found {shown}")
    else:
        return {}
    return {name: array} if there.all() else {name: array, name + VALID_SUFFIX: there}


def _list_tensors(name: str, values: list[Any], where: str) -> dict[str, np.ndarray]:
    wrong = [value for value in values if value is not None and not isinstance(value, list)]
    wrong += [
        item for value in values if isinstance(value, list) for item in value if item is None or type(item) is list
    ]
    if wrong:
        shown = _shown(wrong[0])
        raise InputError(f"{where}: expected a list of text or of numbers for each, or null, found {shown}")
    lists = [value or [] for value in values]
    lengths = np.array([len(value) for value in lists], dtype=np.int64)
    flat = [item for value in lists for item in value]
    if not flat:
        return {name + LENGTHS_SUFFIX: lengths}
    return {**_column_tensors(name, "", flat, where), name + LENGTHS_SUFFIX: lengths}


def rest_body(tensors: Mapping[str, np.ndarray], version: str = "") -> dict[str, Any]:
    """The JSON body of a REST request of the protocol.

    Args:
        tensors: As `request_tensors` makes them.
        version: Digest of the version to ask; empty for the one that the user is routed to.
    """
    inputs = [
        {
            "name": name,
            "datatype": _DATATYPES[array.dtype],
            "shape": list(array.shape),
            "data": [value.decode() if isinstance(value, bytes) else value for value in array.tolist()],
        }
        for name, array in tensors.items()
    ]
    return {"inputs": inputs, **({"parameters": {"version": version}} if version else {})}


def texts_array(values: list[str] | list[bytes], where: str) -> np.ndarray:
    """Texts as UTF-8, dtype object; bytes stay as they are.

    Raises:
        InputError: If one is no text in Unicode.
    """
    try:
        encoded = [value.encode() if isinstance(value, str) else value for value in values]
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: holds a character that is none in Unicode") from error
    return np.array([*encoded, None], dtype=object)[:-1]


def _integers(values: list[int], where: str) -> np.ndarray:
    try:
        return np.array(values, dtype=np.int64)
    except OverflowError as error:
        raise InputError(f"{where}: {max(values, key=abs)} is beyond 64 bits") from error


def microseconds(value: Any, where: str) -> int:
    """A moment as microseconds since 1970 in UTC.

    Args:
        value: ISO 8601 text or a `datetime`, with a time zone, or microseconds.
        where: What it is, for errors.

    Raises:
        InputError: If it is none of these.
    """
    if type(value) is int:
        return int(_integers([value], where)[0])
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        return (moment - _EPOCH) // timedelta(microseconds=1)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{where} = {_shown(value)}: expected a moment with its zone, such as 2017-04-21T10:15:00Z"
        ) from error


def _shown(value: Any) -> str:
    return repr(value)[:60]
