"""A third data set needs a YAML file and Parquet, and no code: here one with made-up column names."""

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.common.errors import InputError
from components.common.layout import Store
from components.features.events import ACTIONS, IMPRESSIONS
from components.features.examples import EVALUATION, read_examples
from components.join.assemble import JoinJob
from components.join.run import join_days
from components.make_logs.run import make_logs
from components.train.one_model import train_batch
from data_validation.examples.validate import validate_examples
from data_validation.logs.validate import validate_logs
from pipelines.config import load_config
from tests.conftest import write_config

VALUES = {
    "dataset": {
        "name": "shop",
        "first_day": "2026-05-01",
        "context_identifiers": ["brand", "shelf"],
        "context_numbers": ["discount"],
        "action_entities": ["brand"],
        "good_click": {"column": "dwell_seconds", "at_least": 10},
        "attribution": {
            "add_to_cart": {"entity": "brand", "click_through_days": 1, "view_through_days": 1},
            "checkout": {"entity": "brand", "click_through_days": 1, "view_through_days": 1},
        },
    },
    "schedule": {"first_day": "2026-05-03", "num_batch_days": 2},
    "features": {
        "categorical": [{"name": name, "num_rows": 64} for name in ("user_id", "item_id", "brand", "shelf")],
        "sequence": {"length": 4, "entities": ["brand"]},
        "counts": {"entities": ["brand"], "windows_days": [2]},
        "engagement": {"entities": ["brand"], "window_days": 2},
        "numbers": ["discount"],
    },
    "arms": {"baseline": {}, "sparse_optimizer": {"optimizer": {"table_multiplier": 50}}},
}
COLUMNS = {
    IMPRESSIONS: {
        "impression_id": "imp",
        "timestamp": "shown_at",
        "user_id": "who",
        "item_id": "sku",
        "brand": "marque",
        "shelf": "place",
        "discount": "rabatt",
    },
    ACTIONS: {
        "action_id": "act",
        "timestamp": "done_at",
        "user_id": "who",
        "action_type": "what",
        "source": "where",
        "impression_id": "imp",
        "item_id": "sku",
        "brand": "marque",
        "dwell_seconds": "stay",
    },
}


def deliver(root, days):
    """String identifiers, naive millisecond timestamps, odd names: as somebody else's logs would be."""
    generator = np.random.default_rng(0)
    for offset, day in enumerate(days):
        moments = np.datetime64(str(day), "ms") + generator.integers(0, 80_000_000, 300).astype("timedelta64[ms]")
        text = {name: [f"{name}-{i}" for i in generator.integers(0, 20, 300)] for name in ("who", "sku", "marque")}
        shown = pa.table(
            {
                "imp": [f"imp-{offset}-{i}" for i in range(300)],
                "shown_at": moments,
                **text,
                "place": generator.integers(0, 5, 300).astype("int32"),
                "rabatt": generator.random(300).astype("float32"),
                "not in the contract": ["x"] * 300,
            }
        )
        clicked = generator.random(300) < 0.3
        clicks = shown.filter(pa.array(clicked)).select(["who", "sku", "marque", "imp"])
        count = clicks.num_rows
        acted = clicks.append_column("act", pa.array([f"act-{offset}-{i}" for i in range(count)]))
        acted = acted.append_column("done_at", pa.array(moments[clicked] + np.timedelta64(5, "s")))
        acted = acted.append_column("what", pa.array(["click"] * count))
        acted = acted.append_column("where", pa.array(["onsite"] * count))
        acted = acted.append_column("stay", pa.array(np.arange(count) % 30))
        for name, table in ((IMPRESSIONS, shown), (ACTIONS, acted)):
            folder = root / name / f"event_date={day}"
            folder.mkdir(parents=True)
            pq.write_table(table, folder / "x.parquet")


def config_of(root, columns=COLUMNS):
    source = {"kind": "parquet"} | {
        name: {"uri": str(root / name), "columns": columns[name]} for name in (IMPRESSIONS, ACTIONS)
    }
    return load_config(str(write_config(root / "shop.yaml", VALUES | {"source": source})))


def test_made_up_columns_reach_training(tmp_path):
    config = config_of(tmp_path)
    days = [config.dataset.first_day + timedelta(days=i) for i in range(7)]
    deliver(tmp_path, days)
    store, first, last = Store(str(tmp_path / "store")), days[2], days[4]
    as_of = config.dataset.mature_on(last) + timedelta(days=1)
    read = config.dataset.days_read(first, last, config.features.history_days)
    make_logs(store.root, config.dataset, config.source.model_dump(mode="json"), read)
    validate_logs(store.root, config.dataset, config.validation, read, as_of)
    job = JoinJob(config.dataset, config.features, config.join, first, last, as_of, last)
    assert join_days(store.root, job)["impressions"] == 900
    validate_examples(store.root, config.dataset, config.features, config.validation, [first, days[3], last])
    examples = read_examples(store, EVALUATION, last)[0]
    assert 0.2 < np.mean(examples["clicked"].to_numpy()) < 0.4
    assert examples["user_brand_click_2d"].to_numpy().max() > 0
    assert len(train_batch(store.root, "baseline", config.features, config.arms["baseline"], [first, days[3]])) == 64


def test_wrong_mapping_names_the_file_and_its_columns(tmp_path):
    columns = {**COLUMNS, IMPRESSIONS: {**COLUMNS[IMPRESSIONS], "user_id": "customer"}}
    config = config_of(tmp_path, columns)
    deliver(tmp_path, [config.dataset.first_day])
    with pytest.raises(InputError, match=r"x\.parquet: no column 'customer' for 'user_id'; it has \['imp'"):
        make_logs(
            str(tmp_path / "store"),
            config.dataset,
            config.source.model_dump(mode="json"),
            [config.dataset.first_day],
        )


def test_mapping_of_an_unknown_contract_column_is_refused(tmp_path):
    columns = {**COLUMNS, ACTIONS: {**COLUMNS[ACTIONS], "colour": "farbe"}}
    with pytest.raises(InputError, match=r"source.actions.columns: \['colour'\] are not columns"):
        config_of(tmp_path, columns)
