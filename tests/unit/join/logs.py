"""Small logs made by hand."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from components.features.events import ACTIONS, IMPRESSIONS, DatasetConfig, arrow_type

HOUR = 3_600_000_000
DAY = 24 * HOUR

DATASET = DatasetConfig.parse(
    {
        "name": "hand_made",
        "first_day": "1970-01-01",
        "context_identifiers": ["brand"],
        "context_numbers": ["price"],
        "action_entities": ["brand"],
        "click_days": 1,
        "good_click": {"column": "dwell_seconds", "at_least": 30},
        "attribution": {
            "add_to_cart": {"entity": "brand", "click_through_days": 3, "view_through_days": 1},
            "checkout": {
                "entity": "item_id",
                "click_through_days": 3,
                "view_through_days": 1,
                "at_same_moment": False,
            },
        },
    },
    "dataset",
)


def table(name: str, rows: list[dict[str, Any]], dataset: DatasetConfig = DATASET, like: pa.DataType | None = None):
    """A log in the contract from rows of plain values; times in microseconds."""
    identifier = like or pa.int64()
    schema = pa.schema([(column.name, arrow_type(column, identifier)) for column in dataset.columns(name)])
    columns = {field.name: [row.get(field.name) for row in rows] for field in schema}
    arrays = [
        pa.array(columns[field.name], pa.int64()).cast(field.type)
        if field.name == "timestamp"
        else pa.array(columns[field.name], field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def impressions(rows: list[dict[str, Any]], **kwargs: Any) -> pa.Table:
    """Impressions; see `table`."""
    return table(IMPRESSIONS, rows, **kwargs)


def actions(rows: list[dict[str, Any]], **kwargs: Any) -> pa.Table:
    """Actions; see `table`."""
    return table(ACTIONS, rows, **kwargs)
