"""Makes logs in the shape of two well-known public data sets, with something to learn in them; no row is a real one.

python docs/examples/make_logs.py avazu runs/avazu_like
python docs/examples/make_logs.py criteo runs/criteo_like
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv

_FIRST_DAY = np.datetime64("2014-10-21")
# What Avazu's log has in place of a device's id, a site and an app where there is none.
_NO_DEVICE, _NO_SITE, _NO_APP = "a99f214a", "85f751fd", "ecad2386"
# Of Criteo's columns: how many values each categorical one has, and what share of them is absent.
_NUM_VALUES = (60, 150, 4000, 3000, 30, 12, 2000, 60, 3, 3500, 1500, 4000, 1200, 24)
_NUM_VALUES = (*_NUM_VALUES, 2500, 4000, 10, 1100, 400, 4, 4000, 9, 14, 3000, 40, 1800)
_VALUES_ABSENT = {3: 0.03, 4: 0.03, 6: 0.12, 12: 0.03, 16: 0.03, 19: 0.43, 20: 0.43, 21: 0.03, 22: 0.76, 25: 0.43}
# Likewise of each count: the mean and the spread of its logarithm, and what share is absent.
_COUNTS = (
    *((0.8, 1.2, 0.45), (2.0, 2.0, 0.0), (1.8, 1.3, 0.21), (1.7, 1.0, 0.22), (8.0, 2.2, 0.03), (3.6, 1.6, 0.22)),
    *((1.5, 1.5, 0.04), (2.0, 1.1, 0.0), (3.8, 1.4, 0.04), (0.2, 0.5, 0.45), (0.8, 0.8, 0.04), (0.1, 0.8, 0.77)),
    (1.8, 1.1, 0.22),
)


class _World:
    """Draws rows whose ids are as unevenly frequent as those of real logs."""

    def __init__(self, num_days: int, rows_a_day: int, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.size, self.num_days = num_days * rows_a_day, num_days
        # Few users a row would leave nothing to learn of a user.
        self.num_users = max(50, self.size // 12)
        self.users = self.pick(self.num_users, 1.5)

    def pick(self, number: int, unevenness: float = 3.0) -> np.ndarray:
        """One of some things for each row, int64, shape (n,); the higher the unevenness, the more often the first."""
        return (number * self.random.random(self.size) ** unevenness).astype(np.int64)

    def chance(self, share: float) -> np.ndarray:
        """Yes for a share of the rows, bool, shape (n,)."""
        return self.random.random(self.size) < share

    def effects(self, *sizes: int) -> np.ndarray:
        """How much each thing, or each pair of things, is liked: standard normal, of this shape."""
        return self.random.normal(size=sizes)

    def names(self, number: int) -> np.ndarray:
        """Hashed values such as 1fbe01fe, shape (number,)."""
        return np.array([f"{value:08x}" for value in self.random.choice(2**32, number, replace=False)])

    def seconds(self) -> np.ndarray:
        """Times since the first day began, ascending, int64, shape (n,)."""
        return np.sort(self.random.integers(0, self.num_days * 86_400, self.size))

    def clicks(self, taste: np.ndarray, offset: float) -> np.ndarray:
        """1 where a click followed, else 0, by the true log-odds of each row, shape (n,)."""
        return (self.random.random(self.size) < 1 / (1 + np.exp(-(taste + offset)))).astype(np.int64)


def avazu_like(num_days: int, rows_a_day: int, seed: int = 0) -> pa.Table:
    """All columns are categorical; hours as YYMMDDHH; most devices have no id; about 17% of the views are clicked.

    Clicks depend on the user, on the ad, and most of all on which ad is shown where.
    """
    world = _World(num_days, rows_a_day, seed)
    num_ads, num_sites, num_apps = 200, 60, 30
    seconds, ads, is_app = world.seconds(), world.pick(num_ads, 2.0), world.chance(0.4)
    sites, apps, banner = world.pick(num_sites), world.pick(num_apps), world.pick(8, 4.0)
    places = np.where(is_app, num_sites + apps, sites)
    hours = seconds // 3600
    taste = 0.4 * world.effects(num_ads)[ads] + 0.5 * world.effects(num_sites + num_apps)[places]
    taste += 0.8 * world.effects(num_ads, num_sites + num_apps)[ads, places]
    taste += 0.6 * world.effects(world.num_users)[world.users] + 0.3 * np.cos(hours % 24 / 24 * 2 * np.pi)
    user = world.users
    devices, addresses, models = world.names(world.num_users), world.names(world.num_users), world.names(80)
    domains, categories, app_domains = world.names(40), world.names(9), world.names(12)
    moments = np.datetime_as_string(_FIRST_DAY + hours.astype("timedelta64[h]"), unit="h")
    columns = {
        # As in the original, beyond what 64 bits with a sign hold.
        "id": np.uint64(10**19) + np.arange(world.size, dtype=np.uint64) * np.uint64(1_000_003),
        "click": world.clicks(taste, -2.1),
        "hour": [f"{text[2:4]}{text[5:7]}{text[8:10]}{text[11:13]}" for text in moments],
        "C1": np.array([1005, 1002, 1010, 1012])[world.pick(4, 5.0)],
        "banner_pos": banner,
        "site_id": np.where(is_app, _NO_SITE, world.names(num_sites)[sites]),
        "site_domain": np.where(is_app, "c4e18dd6", domains[sites % 40]),
        "site_category": np.where(is_app, "50e219e0", categories[sites % 9]),
        "app_id": np.where(is_app, world.names(num_apps)[apps], _NO_APP),
        "app_domain": np.where(is_app, app_domains[apps % 12], "7801e8d9"),
        "app_category": np.where(is_app, categories[apps % 5], "07d7df22"),
        "device_id": np.where(user % 10 < 7, _NO_DEVICE, devices[user]),
        "device_ip": addresses[user],
        "device_model": models[user % 80],
        "device_type": np.array([1, 1, 1, 0, 4])[user % 5],
        "device_conn_type": np.array([0, 0, 0, 2, 3])[user % 5],
        "C14": 15_700 + 7 * ads,
        "C15": np.array([320, 320, 300, 728])[ads % 4],
        "C16": np.array([50, 50, 250, 90])[ads % 4],
        "C17": 1_700 + ads // 4,
        "C18": ads // 4 % 4,
        "C19": np.array([35, 39, 167, 161, 47, 1327])[ads % 6],
        "C20": np.where(world.chance(0.45), -1, 100_000 + world.pick(60)),
        "C21": np.array([23, 79, 48, 157, 33])[ads // 4 % 5],
    }
    return pa.table(columns)


def criteo_like(num_days: int, rows_a_day: int, seed: int = 0) -> pa.Table:
    """Seconds from the first row on, a user's id in four of five rows, 13 counts with gaps, 26 hashed columns.

    About a quarter of the views are clicked. Clicks depend on the user, on C2, on C5 and C8 together, on which range
    I5 is in, and on whether I1 and I12 are there.
    """
    world = _World(num_days, rows_a_day, seed)
    values = [world.pick(number) for number in _NUM_VALUES]
    counts, absent = [], [world.chance(share) for *_, share in _COUNTS]
    of_user = world.effects(world.num_users)[world.users]
    for mean, spread, _ in _COUNTS:
        tail = mean + spread * (0.6 * of_user + 0.8 * world.effects(world.size))
        counts.append(np.exp(np.minimum(tail, 14.0)).astype(np.int64))
    counts[1] -= 2
    pairs = world.effects(_NUM_VALUES[4], _NUM_VALUES[7])
    taste = 0.7 * world.effects(_NUM_VALUES[1])[values[1]] + 0.9 * pairs[values[4], values[7]]
    taste += 0.6 * world.effects(world.num_users)[world.users]
    # Neither rising nor falling: of its logarithm alone a line learns nothing.
    taste += 0.9 * np.cos(1.5 * np.log1p(counts[4])) + 0.5 * absent[0] - 0.4 * absent[11]
    uids = np.array([str(number) for number in world.random.permutation(10**6)[: world.num_users]])
    columns: dict[str, pa.Array] = {
        "timestamp": pa.array(world.seconds()),
        "uid": pa.array(uids[world.users], mask=world.chance(0.2)),
        "label": pa.array(world.clicks(taste, -1.3)),
    }
    for number, (count, gaps) in enumerate(zip(counts, absent, strict=True), start=1):
        columns[f"I{number}"] = pa.array(count, mask=gaps)
    for number, (value, size) in enumerate(zip(values, _NUM_VALUES, strict=True), start=1):
        gaps = world.chance(_VALUES_ABSENT.get(number, 0.0))
        columns[f"C{number}"] = pa.array(world.names(size)[value], mask=gaps)
    return pa.table(columns)


SHAPES: dict[str, tuple[Callable[[int, int, int], pa.Table], str, str]] = {
    "avazu": (avazu_like, "train.csv", ","),
    "criteo": (criteo_like, "train.tsv", "\t"),
}


def make_logs(shape: str, folder: Path, num_days: int, rows_a_day: int, seed: int = 0) -> Path:
    """Write one file with a header line; equal arguments give equal bytes. Returns its path."""
    make, name, delimiter = SHAPES[shape]
    folder.mkdir(parents=True, exist_ok=True)
    options = csv.WriteOptions(delimiter=delimiter, quoting_style="none", quoting_header="none")
    csv.write_csv(make(num_days, rows_a_day, seed), folder / name, options)
    return folder / name


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", choices=[*SHAPES])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--days", type=int, default=10)
    parser.add_argument("--rows-a-day", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(make_logs(given.shape, given.folder, given.days, given.rows_a_day, given.seed))


if __name__ == "__main__":
    main()
