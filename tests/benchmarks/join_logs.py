"""Clean logs of any size for the join's benchmark: ten days of impressions and what follows from them."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pyarrow as pa

from components.common import parquet_files, storage
from components.common.days import MICROSECONDS_PER_DAY, microseconds
from components.common.layout import Store
from components.common.manifests import Step, find_manifest, write_artifact
from components.features.events import ACTIONS, IMPRESSIONS, TIMESTAMP, DatasetConfig
from components.features.feature_list import FeatureConfig
from components.features.log_manifests import LOG_FILE, CleanLogManifest
from components.make_logs.simulator import zipf_ranks

NUM_DAYS, KEEP_RATE = 10, 0.1
DATASET = DatasetConfig.parse(
    {
        "name": "benchmark",
        "first_day": "2026-01-01",
        "context_identifiers": ["campaign_id"],
        "action_entities": ["campaign_id"],
        "attribution": {
            name: {"entity": "campaign_id", "click_through_days": 7, "view_through_days": 1, "at_same_moment": False}
            for name in ("add_to_cart", "checkout")
        },
    },
    "dataset",
)
FEATURES = FeatureConfig.parse(
    {
        "categorical": [{"name": name, "num_rows": 1000} for name in ("user_id", "item_id", "campaign_id")],
        "sequence": {"length": 10, "entities": ["item_id"]},
        "counts": {"entities": ["item_id", "campaign_id"], "windows_days": [3, 7]},
        "engagement": {"entities": ["item_id", "campaign_id"], "window_days": 7},
    },
    "features",
)
_IDENTIFIERS = dict.fromkeys(("impression_id", "action_id", "user_id", "item_id", "campaign_id"), "int64")
FIRST, LAST = DATASET.first_day, DATASET.first_day + timedelta(days=NUM_DAYS - 1)


def write_logs(store: Store, num_impressions: int, num_days: int = NUM_DAYS) -> None:
    """Write clean logs: 3% of the impressions lead to a conversion, 5% to a click; a store that has them is kept."""
    marker = storage.join_uri(store.root, f"made-{num_impressions}")
    if storage.exists(marker):
        return
    generator = np.random.default_rng(7)
    num_users, num_items = num_impressions // 10, 100_000
    moment = np.sort(generator.integers(0, num_days * MICROSECONDS_PER_DAY, num_impressions)) + microseconds(FIRST)
    item = zipf_ranks(generator, num_impressions, num_items, 0.8)
    shown = {
        "impression_id": np.arange(num_impressions),
        "timestamp": moment,
        "user_id": generator.integers(0, num_users, num_impressions),
        "item_id": item,
        "campaign_id": item % 2000,
    }
    last = FIRST + timedelta(days=num_days - 1)
    _write_days(store, IMPRESSIONS, shown, last)
    _write_days(store, ACTIONS, _actions(shown, generator), last)
    storage.write_bytes(marker, b"")


def _actions(shown: dict[str, np.ndarray], generator: np.random.Generator) -> dict[str, np.ndarray]:
    num_impressions = len(shown["timestamp"])
    clicked = generator.choice(num_impressions, num_impressions // 20, replace=False)
    # Half of the conversions follow a click, the others any impression; one in five is of another campaign.
    num_conversions = num_impressions * 3 // 100
    converted = generator.choice(num_impressions, num_conversions)
    converted[::2] = generator.choice(clicked, len(converted[::2]))
    click_delay = generator.integers(1_000_000, 600_000_000, len(clicked))
    delay = 600_000_000 + generator.exponential(2 * MICROSECONDS_PER_DAY, num_conversions).astype(np.int64)
    rows, is_click = np.concatenate([clicked, converted]), np.arange(len(clicked) + num_conversions) < len(clicked)
    campaign = shown["campaign_id"][rows]
    campaign[len(clicked) :: 5] = generator.integers(0, 2000, len(campaign[len(clicked) :: 5]))
    actions = {
        "action_id": np.arange(len(rows)),
        "timestamp": shown["timestamp"][rows] + np.concatenate([click_delay, delay]),
        "user_id": shown["user_id"][rows],
        "action_type": np.where(is_click, "click", np.where(np.arange(len(rows)) % 2, "checkout", "add_to_cart")),
        "source": np.where(is_click, "onsite", "offsite"),
        "impression_id": np.ma.masked_array(rows, mask=~is_click),
        "item_id": shown["item_id"][rows],
        "dwell_seconds": np.ma.masked_array(generator.exponential(30.0, len(rows)), mask=~is_click),
        "value": np.ma.masked_array(generator.lognormal(3.0, 0.5, len(rows)), mask=is_click),
        "campaign_id": campaign,
    }
    order = np.argsort(actions["timestamp"], kind="stable")
    return {name: values[order] for name, values in actions.items()}


def _write_days(store: Store, log_name: str, columns: dict[str, np.ndarray], last: date) -> None:
    days = columns["timestamp"] // MICROSECONDS_PER_DAY
    for day in DATASET.days_read(FIRST, last, FEATURES.history_days):
        start, stop = np.searchsorted(days, [ordinal(day), ordinal(day) + 1])
        arrays = {}
        for name, values in columns.items():
            mask = np.ma.getmaskarray(values)[start:stop] if isinstance(values, np.ma.MaskedArray) else None
            arrays[name] = pa.array(np.asarray(values[start:stop]), mask=mask)
        arrays["timestamp"] = arrays["timestamp"].cast(TIMESTAMP)
        table = pa.table(arrays)
        if find_manifest(store.clean_logs(log_name, day), CleanLogManifest) is None:
            write_artifact(
                store.clean_logs(log_name, day),
                CleanLogManifest(
                    origin=Step("benchmark").origin(),
                    rows=table.num_rows,
                    delivered=table.num_rows,
                    quarantined={},
                    identifiers=_IDENTIFIERS,
                ),
                lambda staged, table=table: parquet_files.write_parquet(storage.join_uri(staged, LOG_FILE), table),
            )


def ordinal(day: date) -> int:
    """Days since the epoch."""
    return microseconds(day) // MICROSECONDS_PER_DAY
