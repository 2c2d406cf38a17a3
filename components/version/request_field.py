"""One tensor of a request, checked, as a column of the logs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.common.errors import InputError
from components.features.events import ACTION_TYPES
from components.features.values import is_number
from components.version.wire_names import ACTION_PREFIX, LENGTHS_SUFFIX, VALID_SUFFIX

_MAX_LENGTH = 1000
# 2000 and 2100: what was counted in seconds, milliseconds or nanoseconds is outside.
_EARLIEST, _LATEST = 946_684_800_000_000, 4_102_444_800_000_000
_ARROW = {"INT64": pa.int64(), "BYTES": pa.string(), "FP32": pa.float64()}

Part = Literal["user", "candidates", "actions"]


@dataclass(frozen=True)
class Field:
    """One tensor of a request.

    Attributes:
        column: Its column in the logs or examples.
        part: One value a request, one a candidate, or one an action.
        kind: What its values are.
        datatype: INT64, BYTES or FP32; numbers may also come as INT64 or FP64.
        required: Whether every row must have a value.
    """

    column: str
    part: Part
    kind: Literal["timestamp", "identifier", "action_type", "number", "identifiers", "weights"]
    datatype: str
    required: bool

    @cached_property
    def name(self) -> str:
        """Its tensor's name."""
        return f"{ACTION_PREFIX}{self.column}" if self.part == "actions" else self.column

    @cached_property
    def is_list(self) -> bool:
        """Whether a row has a list of values."""
        return self.kind in ("identifiers", "weights")

    @cached_property
    def sized_by(self) -> str:
        """The tensor that has a value for each row."""
        return self.name + LENGTHS_SUFFIX if self.is_list else self.name

    @cached_property
    def beside(self) -> str:
        """The tensor that may come with its own."""
        return self.name + (LENGTHS_SUFFIX if self.is_list else VALID_SUFFIX)


def column_of(field: Field, tensors: Mapping[str, np.ndarray], num_rows: int) -> pa.Array | np.ndarray:
    """A tensor as a checked column of `num_rows` values: Arrow's for text and where values may be absent, else NumPy's.

    Numbers are float64, NaN where they are absent; lists are Arrow's, empty where they are.
    """
    if field.is_list:
        return _lists(field, tensors, num_rows)
    values = tensors.get(field.name)
    if values is None:
        if field.required and num_rows:
            raise InputError(
                f"input {field.name!r} is missing: {field.datatype}, one value for each of the {field.part}"
            )
        absent = {"number": np.full(num_rows, np.nan), "timestamp": np.zeros(num_rows, dtype=np.int64)}
        return absent.get(field.kind, pa.nulls(num_rows, _ARROW[field.datatype]))
    valid = tensors.get(field.beside)
    if valid is not None:
        valid = _sized(field.beside, field.part, valid, num_rows)
        if valid.dtype != np.bool_:
            raise InputError(f"input {field.beside!r} is {valid.dtype}; it must be BOOL")
    return _CHECKS[field.kind](field, _sized(field.name, field.part, values, num_rows), valid)


def _lists(field: Field, tensors: Mapping[str, np.ndarray], num_rows: int) -> pa.ListArray:
    if field.name in tensors and field.sized_by not in tensors:
        raise InputError(f"input {field.sized_by!r} is missing: INT64, how many values of {field.name!r} each row has")
    none = np.zeros(num_rows, dtype=np.int64)
    lengths = _sized(field.sized_by, field.part, tensors.get(field.sized_by, none), num_rows)
    if lengths.dtype != np.int64 or (lengths < 0).any() or (lengths > _MAX_LENGTH).any():
        raise InputError(f"input {field.sized_by!r} must be INT64, each from 0 to {_MAX_LENGTH}")
    values = tensors.get(field.name, np.zeros(0, dtype=np.float32 if field.kind == "weights" else np.int64))
    # One list may stand for all candidates.
    is_shared = num_rows > 1 and tensors.get(field.sized_by, lengths).size == 1
    expected = int(lengths[0] if is_shared else lengths.sum())
    if values.ndim != 1 or len(values) != expected:
        raise InputError(f"input {field.name!r} has {values.size} values, {field.sized_by!r} says {expected}")
    if field.name not in tensors:
        column: pa.Array | np.ndarray = pa.nulls(0, _ARROW[field.datatype])
    elif field.kind == "weights":
        column = _numbers(field, values, None)
        if (column < 0).any():
            raise InputError(f"input {field.name!r} has {column.min()}; weights are 0 or more")
    else:
        column = _identifiers(field, values, None)
    if is_shared:
        one = pa.ListArray.from_arrays(pa.array([0, expected], pa.int32()), pa.array(column))
        return one.take(pa.array(np.zeros(num_rows, dtype=np.int64)))
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(column))


def _sized(name: str, part: Part, values: np.ndarray, num_rows: int) -> np.ndarray:
    if values.ndim != 1:
        raise InputError(f"input {name!r} has shape {list(values.shape)}; it must have one dimension")
    if len(values) == num_rows:
        return values
    if len(values) == 1 and part == "candidates":
        return np.repeat(values, num_rows)
    raise InputError(f"input {name!r} has {len(values)} values, the request has {num_rows} of {part}")


def _timestamps(field: Field, values: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
    if values.dtype != np.int64:
        raise InputError(f"input {field.name!r} is {values.dtype}; it must be INT64, microseconds since 1970 in UTC")
    wrong = (values < _EARLIEST) | (values >= _LATEST)
    if wrong.any():
        raise InputError(
            f"input {field.name!r} has {values[wrong][0]}; it must be microseconds since 1970 in UTC, from 2000 to 2100"
        )
    return values


def _identifiers(field: Field, values: np.ndarray, valid: np.ndarray | None) -> pa.Array | np.ndarray:
    mask = None if valid is None else ~valid
    if field.datatype == "INT64":
        if values.dtype.kind not in "iu" or values.dtype == np.uint64:
            raise InputError(f"input {field.name!r} is {_kind_of(values)}; it must be INT64, as in the logs")
        integers = values.astype(np.int64, copy=False)
        return integers if mask is None else pa.array(integers, mask=mask)
    texts = _strings(field, values, mask)
    if field.required:
        row = pc.index(texts, "").as_py()
        if row >= 0:
            raise InputError(f"input {field.name!r} is empty in row {row}; it must be an identifier, as in the logs")
    return texts


def _strings(field: Field, values: np.ndarray, mask: np.ndarray | None) -> pa.Array:
    if values.dtype != object:
        raise InputError(f"input {field.name!r} is {_kind_of(values)}; it must be BYTES, as in the logs")
    try:
        return pa.array(values, pa.binary(), mask=mask).cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InputError(f"input {field.name!r} holds bytes that are not UTF-8 text") from error


def _action_types(field: Field, values: np.ndarray, valid: np.ndarray | None) -> pa.Array:
    texts = _strings(field, values, None)
    unknown = [name for name in texts.unique().to_pylist() if name not in ACTION_TYPES]
    if unknown:
        raise InputError(f"input {field.name!r} has {unknown[0]!r}; it must be one of {list(ACTION_TYPES)}")
    return texts


def _numbers(field: Field, values: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
    if values.dtype.kind not in "iuf":
        raise InputError(f"input {field.name!r} is {_kind_of(values)}; it must be FP32")
    numbers = values.astype(np.float64) if valid is None else np.where(valid, values, np.nan)
    wrong = ~is_number(numbers) & (field.required | ~np.isnan(numbers))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(f"input {field.name!r} has {numbers[row]} in row {row}; it must be a finite number of 32 bits")
    return numbers


def _kind_of(values: np.ndarray) -> str:
    return "BYTES" if values.dtype == object else str(values.dtype)


_CHECKS = {
    "timestamp": _timestamps,
    "identifier": _identifiers,
    "action_type": _action_types,
    "number": _numbers,
}
