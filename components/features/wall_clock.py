"""Time as the clocks of a place show it.

Logs and features count days and hours by one time zone, UTC unless a data set has another. Inside, moments are the
zone's wall clock as microseconds since 1970, so that a day is a day everywhere. When clocks are set back an hour comes
twice: there both hours go at half speed, so that what came first still does.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_LOOK_AROUND = 3 * 3_600_000_000


def to_wall_clock(moments: np.ndarray, zone: str) -> np.ndarray:
    """Microseconds since 1970 in UTC to those of a zone's wall clock, int64, in the shape of `moments`."""
    if zone == "UTC" or not len(moments):
        return moments
    offset = _offset(moments, zone)
    wall = moments + offset
    back_soon = np.maximum(offset - _offset(moments + _LOOK_AROUND, zone), 0)
    back_before = np.maximum(_offset(moments - _LOOK_AROUND, zone) - offset, 0)
    first = (back_soon > 0) & (_offset(moments + back_soon, zone) < offset)
    second = (back_before > 0) & (_offset(moments - back_before, zone) > offset)
    set_back = np.where(first, back_soon, np.where(second, back_before, 1))
    into = wall % set_back
    slowed = wall - into + into // 2 + np.where(second, set_back // 2, 0)
    return np.where(first | second, slowed, wall)


def from_wall_clock(wall: np.ndarray, zone: str) -> np.ndarray:
    """The moments in UTC of a wall clock's times, likewise; of an hour that comes twice, up to a microsecond."""
    if zone == "UTC" or not len(wall):
        return wall
    earliest, latest = (_instant(wall, zone, which) for which in ("earliest", "latest"))
    set_back = np.maximum(latest - earliest, 1)
    return np.asarray(earliest + np.where(set_back > 1, wall % set_back, 0))


def _offset(moments: np.ndarray, zone: str) -> np.ndarray:
    there = pa.array(moments).cast(pa.timestamp("us", tz="UTC")).cast(pa.timestamp("us", tz=zone))
    return np.asarray(pc.local_timestamp(there).cast(pa.int64())) - moments


def _instant(wall: np.ndarray, zone: str, which: str) -> np.ndarray:
    naive = pa.array(wall).cast(pa.timestamp("us"))
    known = pc.assume_timezone(naive, zone, ambiguous=which, nonexistent="latest")
    return np.asarray(known.cast(pa.int64()))
