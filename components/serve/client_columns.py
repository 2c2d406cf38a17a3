"""A part of a request, in any form that callers have it, as columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from components.common.errors import InputError

# Lists hold Python's values, None where there is none; arrays have one dimension.
Column = list[Any] | np.ndarray
_FORMS = "a list of objects, an object of columns, a pandas DataFrame or an Arrow table"


def columns_of(part: str, given: Any) -> tuple[dict[str, Column], int]:
    """Columns of a table of the caller, and how many rows they have.

    Nothing is imported for this: whoever passes a DataFrame or an Arrow table has its library already.

    Args:
        part: Of the request, for errors.
        given: Rows, each a mapping; a mapping of columns; a pandas DataFrame, or an Arrow table or record batch.

    Raises:
        InputError: If it is none of these, or its columns are not of one length.
    """
    if hasattr(given, "to_pandas") and hasattr(given, "column_names"):
        columns = {name: _of_arrow(given.column(name)) for name in given.column_names}
    elif hasattr(given, "iloc") and hasattr(given, "columns"):
        columns = {str(name): _of_pandas(given[name]) for name in given.columns}
    elif isinstance(given, Mapping):
        columns = {name: _of_sequence(f"{part}: {name}", values) for name, values in given.items()}
    elif isinstance(given, Sequence) and all(isinstance(row, Mapping) for row in given):
        names = dict.fromkeys(name for row in given for name in row)
        return {name: [row.get(name) for row in given] for name in names}, len(given)
    else:
        raise InputError(f"{part}: expected {_FORMS}, found {_kind_of(given)}")
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"{part}: columns must have one length, found {lengths}")
    return columns, max(lengths.values(), default=0)


def _kind_of(given: Any) -> str:
    if isinstance(given, list):
        return f"a list with {type(next(row for row in given if not isinstance(row, Mapping))).__name__}"
    return type(given).__name__


def _of_sequence(where: str, values: Any) -> Column:
    if isinstance(values, np.ndarray):
        if values.ndim != 1:
            raise InputError(f"{where} has shape {list(values.shape)}; a column has one dimension")
        return _of_array(values)
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        raise InputError(f"{where} is {type(values).__name__}; a column is a list or an array, a value for each row")
    return list(values)


def _of_array(values: np.ndarray) -> Column:
    """Plain numbers stay an array; all else becomes Python's values."""
    return values if values.dtype.kind in "iuf" else values.tolist()


def _of_pandas(series: Any) -> Column:
    dtype = series.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "iuf":
        return np.asarray(series.to_numpy())
    if getattr(dtype, "tz", None) is not None:
        return _microseconds(series.dt.tz_convert(None).to_numpy())
    values = series.astype(object)
    return list(values.where(series.notna(), None))


def _of_arrow(column: Any) -> Column:
    kind = str(column.type)
    if kind.startswith("timestamp"):
        # Arrow has times with a zone in UTC; those without stay without, and are refused later.
        moments = column.cast("timestamp[us]", safe=False)
        return (
            list(moments.to_pylist())
            if column.type.tz is None
            else _microseconds(moments.to_numpy(zero_copy_only=False))
        )
    if column.null_count == 0 and kind.removeprefix("u").startswith(("int", "float", "double")):
        return np.asarray(column.to_numpy(zero_copy_only=False))
    return list(column.to_pylist())


def _microseconds(moments: np.ndarray) -> Column:
    """Microseconds since 1970 of datetime64 in UTC."""
    counted, absent = moments.astype("datetime64[us]").astype(np.int64), np.isnat(moments)
    if not absent.any():
        return counted
    return [None if gone else value for gone, value in zip(absent, counted.tolist(), strict=True)]
