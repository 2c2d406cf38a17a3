"""What a version's requests carry, as its server states it, and requests of callers as its tensors."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from components.common.errors import InputError
from components.serve.client_columns import Column, columns_of
from components.serve.tensors import microseconds, texts_array
from components.version.wire_names import ACTION_PREFIX, LENGTHS_SUFFIX, VALID_SUFFIX

_PARTS = ("user", "candidates", "actions")
_MOMENT = "timestamp"
# Beyond it, neighbouring integers are the same float.
_EXACT = 2**53
_INT64 = np.iinfo(np.int64)


class FieldError(InputError):
    """A value of a request is not what the version takes.

    Attributes:
        part: `user`, `candidates` or `actions`.
        field: The column.
        row: Of the value in its part; None where the whole column is meant.
        value: What was found; None where the column is unknown.
    """

    def __init__(self, message: str, part: str, field: str, row: int | None = None, value: Any = None) -> None:
        """Name the place and the value; the message follows them."""
        where = f"{part}: {field}" if row is None else f"{part}: {field} = {repr(value)[:60]} in row {row}"
        super().__init__(f"{where}: {message}")
        self.part, self.field, self.row, self.value = part, field, row, value


@dataclass(frozen=True)
class Lists:
    """A column of lists: their values behind each other, None if there are none, and how many each row has."""

    flat: np.ndarray | None
    lengths: np.ndarray

    def tensors(self, name: str, first: int = 0, end: int | None = None) -> dict[str, np.ndarray]:
        """The two tensors of some of the rows."""
        lengths = self.lengths[first:end]
        if self.flat is None:
            return {name + LENGTHS_SUFFIX: lengths}
        start = int(self.lengths[:first].sum())
        return {name: self.flat[start : start + int(lengths.sum())], name + LENGTHS_SUFFIX: lengths}


@dataclass(frozen=True)
class RequestTensors:
    """A request's tensors, to be sent in one call or several.

    Attributes:
        shared: Of the user and the actions, by name.
        values: By name, one for each candidate.
        lists: By name, one for each candidate.
        num_candidates: How many there are.
        left_out: Names that the version does not know, where servers ignore such.
    """

    shared: dict[str, np.ndarray]
    values: dict[str, np.ndarray]
    lists: dict[str, Lists]
    num_candidates: int
    left_out: frozenset[str]

    def slice(self, first: int, end: int) -> dict[str, np.ndarray]:
        """The tensors of a call for some of the candidates."""
        own = {name: values[first:end] for name, values in self.values.items()}
        # Where some columns must have a value in every row, servers want none that says so.
        gapless = {name for name, values in own.items() if name.endswith(VALID_SUFFIX) and values.all()}
        tensors = self.shared | {name: values for name, values in own.items() if name not in gapless}
        for name, lists in self.lists.items():
            tensors |= lists.tensors(name, first, end)
        return tensors


class Inputs:
    """The inputs of one version: names and types."""

    def __init__(self, version: str, described: Iterable[Any], ignore_unknown: bool = False) -> None:
        """Take what `ModelMetadata` says.

        Args:
            version: Its digest.
            described: Of each tensor `name` and `datatype`; lists have a second tensor beside them.
            ignore_unknown: Whether columns that are not among them are left out instead of refused.
        """
        self._ignore_unknown = ignore_unknown
        self.version = version
        self.datatypes: dict[str, str] = {tensor.name: str(tensor.datatype) for tensor in described}
        self._lists = {
            name.removesuffix(LENGTHS_SUFFIX) for name in self.datatypes if name.endswith(LENGTHS_SUFFIX)
        } & self.datatypes.keys()

    def tensors(self, request: Mapping[str, Any]) -> RequestTensors:
        """A request's tensors.

        Args:
            request: `user`, a mapping; `candidates` and `actions`, as `columns_of` takes them. What is the same for
                all candidates may be among the user's.

        Raises:
            FieldError: Naming the part, the column, the row and the value.
            InputError: If the request is not of these parts.
        """
        if not isinstance(request, Mapping) or not set(request) <= set(_PARTS) or "user" not in request:
            given = list(request) if isinstance(request, Mapping) else type(request).__name__
            raise InputError(f"a request is an object of {list(_PARTS)}, found {given}")
        user = request["user"]
        if not isinstance(user, Mapping):
            raise InputError(f"user: expected one object, found {type(user).__name__}")
        actions, _ = columns_of("actions", request.get("actions", []))
        candidates, size = columns_of("candidates", request.get("candidates", []))
        twice = next((name for name in candidates if name in user), None)
        if twice is not None:
            raise FieldError("is among the user's columns, too; give it once", "candidates", twice)
        shared: dict[str, np.ndarray] = {}
        for part, columns in (("user", {name: [value] for name, value in user.items()}), ("actions", actions)):
            values, lists = self._of_part(part, columns)
            shared |= values
            for name, own in lists.items():
                shared |= own.tensors(name)
        values, lists = self._of_part("candidates", candidates)
        names = {*user, *candidates, *(ACTION_PREFIX + name for name in actions)}
        return RequestTensors(shared, values, lists, size, frozenset(names - self.datatypes.keys()))

    def _of_part(self, part: str, columns: Mapping[str, Column]) -> tuple[dict[str, np.ndarray], dict[str, Lists]]:
        prefix, values, lists = ACTION_PREFIX if part == "actions" else "", dict[str, np.ndarray](), dict[str, Lists]()
        for column, given in columns.items():
            if not self._is_known(part, column, prefix):
                continue
            name = prefix + column
            if name in self._lists:
                lists[name] = _listed(part, column, self.datatypes[name], given)
            else:
                values |= _plain(part, column, name, self.datatypes[name], given)
        return values, lists

    def _is_known(self, part: str, column: Any, prefix: str) -> bool:
        known = [
            name.removeprefix(ACTION_PREFIX)
            for name in self.datatypes
            if name.startswith(ACTION_PREFIX) == bool(prefix) and not name.endswith(LENGTHS_SUFFIX)
        ]
        if column not in known and not self._ignore_unknown:
            like = difflib.get_close_matches(str(column), known, 1)
            hint = f"did you mean {like[0]!r}? " if like else ""
            message = f"version {self.version[:12]} has no such column; {hint}it takes {sorted(known)}"
            raise FieldError(message, part, str(column))
        return column in known


def _plain(part: str, column: str, name: str, datatype: str, given: Column) -> dict[str, np.ndarray]:
    """A column's tensor, and where values are absent, the one that says which are there."""
    if isinstance(given, np.ndarray) and not (datatype == "INT64" and given.dtype.kind == "f"):
        return {name: _array(part, column, datatype, given)}
    values = given.tolist() if isinstance(given, np.ndarray) else given
    at_once = _of_one_type(part, column, datatype, values)
    if at_once is not None:
        return {name: at_once}
    if datatype in ("FP32", "FP64"):
        return {name: np.array([_number(part, column, row, value) for row, value in enumerate(values)])}
    if datatype == "INT64" and column == _MOMENT:
        return {name: np.array([_moment(part, row, value) for row, value in enumerate(values)], dtype=np.int64)}
    there = np.array([not _is_absent(value) for value in values], dtype=np.bool_)
    array = _identifiers(part, column, datatype, values)
    return {name: array} if there.all() else {name: array, name + VALID_SUFFIX: there}


def _of_one_type(part: str, column: str, datatype: str, values: list[Any]) -> np.ndarray | None:
    """Values that need no look at each: most columns, and most of a request's time otherwise."""
    kinds = set(map(type, values))
    try:
        if datatype == "INT64" and kinds == {int}:
            return np.array(values, dtype=np.int64)
        if datatype == "BYTES" and kinds == {str}:
            return texts_array(values, f"{part}: {column}")
        if datatype in ("FP32", "FP64") and kinds <= {int, float}:
            return np.array(values, dtype=np.float64)
    except OverflowError:
        # One by one, it is found which.
        return None
    return None


def _array(part: str, column: str, datatype: str, given: np.ndarray) -> np.ndarray:
    """Numbers of NumPy as a tensor."""
    if datatype in ("FP32", "FP64"):
        return given.astype(np.float64, copy=False)
    if datatype == "INT64":
        if given.dtype == np.uint64 and given.size and given.max() > _INT64.max:
            row = int(given.argmax())
            raise FieldError("is beyond 64 bits", part, column, row, int(given[row]))
        return np.ascontiguousarray(given, dtype=np.int64)
    raise FieldError("must be text, as in the logs", part, column, 0, given[0].item() if given.size else None)


def _listed(part: str, column: str, datatype: str, given: Column) -> Lists:
    lists = []
    for row, value in enumerate(given):
        own = [] if _is_absent(value) else value.tolist() if isinstance(value, np.ndarray) else value
        if not isinstance(own, list | tuple):
            raise FieldError("expected a list, or None", part, column, row, value)
        lists.append(own)
    lengths = np.array([len(own) for own in lists], dtype=np.int64)
    rows = np.repeat(np.arange(len(lists)), lengths).tolist()
    flat = [item for own in lists for item in own]
    for row, item in zip(rows, flat, strict=True):
        if _is_absent(item):
            raise FieldError("lists hold no absent values; leave them out", part, column, row, lists[row])
    if not flat:
        return Lists(None, lengths)
    at_once = _of_one_type(part, column, datatype, flat)
    if at_once is not None:
        return Lists(at_once, lengths)
    if datatype in ("FP32", "FP64"):
        pairs = zip(rows, flat, strict=True)
        return Lists(np.array([_number(part, column, row, item) for row, item in pairs]), lengths)
    return Lists(_identifiers(part, column, datatype, flat, rows), lengths)


def _identifiers(part: str, column: str, datatype: str, values: list[Any], rows: list[int] | None = None) -> np.ndarray:
    """Integers or text; 0 or no text where there is none. `rows` are the caller's, where several values have one."""
    convert = _text if datatype == "BYTES" else _integer
    found: list[Any] = []
    for place, value in enumerate(values):
        try:
            found.append(convert(value))
        except ValueError as error:
            raise FieldError(str(error), part, column, rows[place] if rows else place, value) from None
    return texts_array(found, f"{part}: {column}") if datatype == "BYTES" else np.array(found, dtype=np.int64)


def _is_absent(value: Any) -> bool:
    if isinstance(value, float | np.floating):
        return bool(value != value)
    # pandas' own two, which are not even equal to themselves, without pandas.
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def _text(value: Any) -> str | bytes:
    if _is_absent(value):
        return ""
    if not isinstance(value, str | bytes):
        raise ValueError(f"must be text, as in the logs, not {type(value).__name__}")
    return value


def _integer(value: Any) -> int:
    if _is_absent(value):
        return 0
    if isinstance(value, float | np.floating):
        # What pandas makes of integers some of which are absent.
        if abs(float(value)) > _EXACT or value != int(value):
            raise ValueError("must be an integer, as in the logs; floats hold those up to 2**53 (pandas: use Int64)")
    elif isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise ValueError(f"must be an integer, as in the logs, not {type(value).__name__}")
    elif not _INT64.min <= int(value) <= _INT64.max:
        raise ValueError("is beyond 64 bits")
    return int(value)


def _number(part: str, column: str, row: int, value: Any) -> float:
    if _is_absent(value):
        return np.nan
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number):
        raise FieldError(f"must be a number, not {type(value).__name__}", part, column, row, value)
    try:
        return float(value)
    except OverflowError:
        raise FieldError("is beyond 64 bits", part, column, row, value) from None


def _moment(part: str, row: int, value: Any) -> int:
    try:
        return microseconds(int(value) if isinstance(value, np.integer) else value, "")
    except InputError as error:
        message = "must be a moment with its zone, such as 2017-04-21T10:15:00Z, or microseconds since 1970"
        raise FieldError(message, part, _MOMENT, row, value) from error
