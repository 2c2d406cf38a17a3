from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from components.features.wall_clock import from_wall_clock, to_wall_clock

MINUTE = 60_000_000
YEAR = np.arange(366 * 1440, dtype=np.int64) * MINUTE + int(datetime(2024, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Havana", "UTC"])
def test_wall_clock_keeps_the_order_and_can_be_turned_back(zone):
    wall = to_wall_clock(YEAR, zone)
    assert (np.diff(wall) > 0).all(), "also when an hour comes twice"
    assert (from_wall_clock(wall, zone) == YEAR).all()
    shown = [datetime.fromtimestamp(int(t) / 1e6, ZoneInfo(zone)) for t in YEAR[::997]]
    same = [f"{w:%m-%d %H}" == f"{s:%m-%d %H}" for w, s in zip(map(_naive, wall[::997]), shown, strict=True)]
    assert all(same), "day and hour are the clock's"


def _naive(micros: np.int64) -> datetime:
    return datetime.fromtimestamp(int(micros) / 1e6, UTC)


def test_repeated_hour_goes_at_half_speed():
    before = (
        int(datetime(2024, 10, 27, 0, 0, tzinfo=UTC).timestamp()) * 1_000_000
    )  # 02:00 in Berlin, for the first time
    shown = [
        f"{_naive(t):%H:%M}" for t in to_wall_clock(before + np.array([0, 30, 60, 90, 120]) * MINUTE, "Europe/Berlin")
    ]
    assert shown == ["02:00", "02:15", "02:30", "02:45", "03:00"]
