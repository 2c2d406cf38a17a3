"""A batch's rows in the memory of a CPU, compiled by numba: one pass looks them up, one adds up gradients, one updates.

Nothing is sorted. A row remembers its place in the list of the batch's rows, and whether that holds for this batch
shows in the list. Every thread takes a range of the weight's rows, and adds up each row's gradients in the order of its
look-ups: so the numbers are the same on any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.extending import intrinsic

_MOST = 2**32 - 1
# How many rows before its turn a row is asked of memory.
_AHEAD, _NUMBERS_AHEAD = 8, 16
_LINE_BYTES = 64


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """For all cores, and kept on disk where there is a place for it."""
    try:
        return numba.njit(parallel=True, cache=True, error_model="numpy")(function)
    except RuntimeError:
        return numba.njit(parallel=True, error_model="numpy")(function)


@intrinsic
def _ask_for(typing_context: Any, array: Any, row: Any) -> Any:
    """Let memory begin to send a row, up to two lines of it: rows at random places are else waited for."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        made = context.make_array(signature.args[0])(context, builder, arguments[0])
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        start = builder.mul(arguments[1], builder.extract_value(made.strides, 0))
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        for line in range(signature.args[0].ndim):
            offset = builder.add(start, ir.IntType(64)(line * _LINE_BYTES))
            place = builder.gep(builder.bitcast(made.data, byte), [offset])
            # For writing, to be kept in all caches, of data.
            builder.call(function, [place, number(1), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@_compiled
def copy_rows(weight, rows, vectors, num_parts):  # type: ignore[no-untyped-def]
    """Look up rows.

    Args:
        weight: float32, shape (rows, dim).
        rows: int64, shape (m,).
        vectors: Filled with them, float32, shape (m, dim).
        num_parts: How many threads share the work.

    Returns:
        How many of the rows the weight does not have.
    """
    num_rows, dim = vectors.shape
    absent = 0
    for part in prange(num_parts):
        end = num_rows * (part + 1) // num_parts
        for place in range(num_rows * part // num_parts, end):
            if place + _AHEAD < end:
                _ask_for(weight, rows[place + _AHEAD])
            row = rows[place]
            if row < 0 or row >= len(weight):
                absent += 1
                continue
            for d in range(dim):
                vectors[place, d] = weight[row, d]
    return absent


@_compiled
def sum_rows(rows, counts, gradients, bounds, places, found, distinct, totals, sums):  # type: ignore[no-untyped-def]
    """Add up counts and gradients of equal rows, in P ranges of rows at once.

    Args:
        rows: Looked-up rows, of the weight, int64, shape (m,).
        counts: How many look-ups each stands for, int64, shape (m,).
        gradients: float32, shape (m, dim).
        bounds: Where the ranges begin and end, int64, shape (P + 1,).
        places: Of every row of the weight, any number from 0; int32, changed.
        found: How many different rows the ranges have so far, int64, shape (P,); raised.
        distinct: These rows, in the order of their first look-ups; int64, shape (P, M), further ones are put behind.
        totals: Their counts, int64, shape (P, M); raised.
        sums: Their gradients, float32, shape (P, M, dim); raised.
    """
    dim, num_rows = gradients.shape[1], len(rows)
    for part in prange(len(found)):
        first_row, end_row = bounds[part], bounds[part + 1]
        own, own_totals, own_sums, number = distinct[part], totals[part], sums[part], found[part]
        for look_up in range(num_rows):
            if look_up + _NUMBERS_AHEAD < num_rows:
                _ask_for(places, rows[look_up + _NUMBERS_AHEAD])
            row = rows[look_up]
            if row < first_row or row >= end_row:
                continue
            place = places[row]
            if place < number and own[place] == row:
                own_totals[place] += counts[look_up]
                for d in range(dim):
                    own_sums[place, d] += gradients[look_up, d]
            else:
                places[row], own[number], own_totals[number] = number, row, counts[look_up]
                for d in range(dim):
                    own_sums[number, d] = gradients[look_up, d]
                number += 1
        found[part] = number


@_compiled
def count_rows(found, distinct, totals, adds, frequencies, ends, largest, tables):  # type: ignore[no-untyped-def]
    """Put the frequencies of what `sum_rows` has found in the place of its counts.

    Args:
        found: As `sum_rows` left it, like the next two.
        distinct: Rows.
        totals: Counts; changed.
        adds: Whether the counts are added to the frequencies first.
        frequencies: How often each row of the weight was looked up, uint32; it stays at its maximum.
        ends: Where each table ends, int64, shape (tables,).
        largest: The largest frequency of each table in each range, int64, shape (P, tables); raised.
        tables: Filled with the rows' tables, int32, shape (P, M).
    """
    for part in prange(len(found)):
        own, own_totals = distinct[part], totals[part]
        table, first_row, end_row = 0, 0, ends[0]
        for place in range(found[part]):
            if place + _NUMBERS_AHEAD < found[part]:
                _ask_for(frequencies, own[place + _NUMBERS_AHEAD])
            row = own[place]
            if row < first_row or row >= end_row:
                table = np.searchsorted(ends, row, side="right")
                first_row, end_row = ends[table - 1] if table > 0 else 0, ends[table]
            frequency = np.int64(frequencies[row])
            if adds:
                frequency = min(frequency + own_totals[place], _MOST)
                frequencies[row] = frequency
                largest[part, table] = max(largest[part, table], frequency)
            own_totals[place], tables[part, place] = frequency, table


@_compiled
def update_rows(  # type: ignore[no-untyped-def]
    weight, exp_avg, exp_avg_sq, row_steps, found, distinct, frequencies, tables, sums, scale, is_log, is_of_gradient,
    rate, of_first, of_second, beta1, beta2, eps,
):  # fmt: skip
    """Take a step of Adam on what `sum_rows` has found.

    Args:
        weight: float32, shape (rows, dim); changed, as are the moments.
        exp_avg: First moments, likewise.
        exp_avg_sq: Second moments, likewise.
        row_steps: Updates of each row, int32, shape (rows,); without rows, moments are corrected by `of_first` and
            `of_second`.
        found: As `sum_rows` and `count_rows` left it, like the next four.
        distinct: Rows.
        frequencies: Of these.
        tables: Of these.
        sums: Gradients.
        scale: What the rows' frequencies, or their logarithms, are multiplied with; float32, shape (tables,). Without
            tables, rates are all the same.
        is_log: Whether it is their logarithms.
        is_of_gradient: Whether the factors are on the gradients, not on the rates.
        rate: Of learning.
        of_first: 1 / (1 - beta1^t).
        of_second: 1 / (1 - beta2^t).
        beta1: Adam's decay of first moments.
        beta2: Of second ones.
        eps: Added to the root of the corrected second moment.
    """
    dim, num_parts, one, total = weight.shape[1], len(found), np.float32(1), found.sum()
    for part in prange(num_parts):
        # Ranges have equally many look-ups, but not different rows: these are shared out anew.
        start, stop, before = total * part // num_parts, total * (part + 1) // num_parts, 0
        for source in range(num_parts):
            own, end = distinct[source], min(stop - before, found[source])
            for place in range(max(start - before, 0), end):
                if place + _AHEAD < end:
                    _ask_for(weight, own[place + _AHEAD])
                    _ask_for(exp_avg, own[place + _AHEAD])
                    _ask_for(exp_avg_sq, own[place + _AHEAD])
                row, factor, first_factor, second_factor = own[place], one, of_first, of_second
                if len(scale) > 0:
                    factor = np.float32(frequencies[source, place])
                    factor = (np.log1p(factor) if is_log else factor) * scale[tables[source, place]]
                if len(row_steps) > 0:
                    row_steps[row] += 1
                    first_factor = np.float32(1 / (1 - np.float64(beta1) ** row_steps[row]))
                    second_factor = np.float32(1 / (1 - np.float64(beta2) ** row_steps[row]))
                on_gradient, step = (factor, rate) if is_of_gradient else (one, rate * factor)
                step *= first_factor
                for d in range(dim):
                    gradient = sums[source, place, d] * on_gradient
                    first = exp_avg[row, d]
                    first += (gradient - first) * (one - np.float32(beta1))
                    second = exp_avg_sq[row, d] * np.float32(beta2) + gradient * gradient * (one - np.float32(beta2))
                    exp_avg[row, d], exp_avg_sq[row, d] = first, second
                    weight[row, d] -= first / (np.sqrt(second * second_factor) + eps) * step
            before += found[source]
