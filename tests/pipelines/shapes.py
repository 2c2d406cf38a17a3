"""Logs in three shapes that companies have, with something to learn in them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

NUM_USERS, NUM_ITEMS = 300, 40


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


class _World:
    """Who saw what when, and how much each user and item is liked."""

    def __init__(self, num_rows: int, num_days: int, start: str, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.users = self.random.integers(0, NUM_USERS, num_rows)
        self.items = self.random.zipf(1.5, num_rows) % NUM_ITEMS
        seconds = np.sort(self.random.integers(0, num_days * 86_400, num_rows))
        self.moments = np.datetime64(start, "s") + seconds.astype("timedelta64[s]")
        self.taste = (
            1.2 * self.random.normal(size=NUM_ITEMS)[self.items] + 0.6 * self.random.normal(size=NUM_USERS)[self.users]
        )

    def happens(self, offset: float) -> np.ndarray:
        return self.random.random(len(self.users)) < _sigmoid(self.taste + offset)


def click_log(folder: Path) -> tuple[str, str]:
    """A CTR log: one CSV, epoch milliseconds, a column that says whether a click followed; no ids of impressions."""
    world = _World(12_000, 12, "2024-03-01")
    millis = world.moments.astype("datetime64[ms]").astype(np.int64) + np.arange(len(world.users)) % 1000
    clicked = world.happens(-1.5).astype(int)
    place = world.random.integers(0, 3, len(clicked))
    lines = ["ts,uid,ad_id,placement,bid,clicked"]
    lines += [
        f"{t},u{u:05d},{i},slot{p},{b:.2f},{c}"
        for t, u, i, p, b, c in zip(
            millis, world.users, world.items, place, world.random.random(len(clicked)), clicked, strict=True
        )
    ]
    path = folder / "clicks.csv"
    path.write_text("\n".join(lines) + "\n")
    return str(path), ""


def event_stream(folder: Path) -> tuple[str, str]:
    """An e-commerce stream: JSON lines of view, favourite, cart, purchase in nested folders; no ids of events."""
    world = _World(14_000, 16, "2024-05-01", seed=1)
    rows = []
    for kind, offset, delay in (
        ("view", None, 0),
        ("favourite", -2.0, 60),
        ("cart", -1.6, 300),
        ("purchase", -2.2, 9_000),
    ):
        chosen = np.ones(len(world.users), bool) if offset is None else world.happens(offset)
        later = world.moments[chosen] + (delay * (0.5 + world.random.random(chosen.sum()))).astype("timedelta64[s]")
        rows += [
            (str(t).replace("T", " "), int(u), f"P-{i}", kind)
            for t, u, i in zip(later, world.users[chosen], world.items[chosen], strict=True)
        ]
    for month, prefix in (("first", "2024-05-0"), ("rest", "2024-05-1")):
        part = folder / "events" / month
        part.mkdir(parents=True)
        of_month = [row for row in sorted(rows) if row[0].startswith(prefix)]
        lines = [
            json.dumps(dict(zip(("event_time", "user_id", "product_id", "event_type"), row, strict=True)))
            for row in of_month
        ]
        (part / "part-0.JSONL").write_text("\n".join(lines) + "\n")
    (folder / "events" / "README.txt").write_text("made by the shop's exporter")
    return str(folder / "events"), ""


def install_log(folder: Path) -> tuple[str, str]:
    """App installs: CSV files with semicolons, times to the minute in the European way, installs that name the show."""
    world = _World(12_000, 12, "2024-09-01", seed=2)
    installed = world.happens(-1.8)
    minutes = world.moments.astype("datetime64[m]")

    def written(moments: np.ndarray) -> list[str]:
        return [f"{str(t)[8:10]}/{str(t)[5:7]}/{str(t)[:4]} {str(t)[11:16]}" for t in moments]

    shown = ["show_id;shown_at;device_id;app;country"]
    shown += [
        f"s-{n};{t};{u};app.{i};{('de', 'fr', 'us')[u % 3]}"
        for n, (t, u, i) in enumerate(zip(written(minutes), world.users, world.items, strict=True))
    ]
    delays = world.random.integers(0, 90, len(minutes)).astype("timedelta64[m]")
    acted = ["show_id;installed_at;device_id;app"]
    acted += [
        f"s-{n};{t};{world.users[n]};app.{world.items[n]}"
        for n, t in zip(np.flatnonzero(installed), written((minutes + delays)[installed]), strict=True)
    ]
    for name, lines in (("shown.csv", shown), ("installs.csv", acted)):
        (folder / name).write_text("\n".join(lines) + "\n")
    return str(folder / "shown.csv"), str(folder / "installs.csv")
