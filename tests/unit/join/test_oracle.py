"""Random small logs, row by row against two other ways of writing the rules.

`make study-join` runs the same tests on ten thousand logs.
"""

from __future__ import annotations

import os
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from components.features.engagement import EngagementIndex, count_engagement, merge_engagement
from components.features.feature_list import FeatureConfig
from components.features.hashed_actions import HashedActions, schema_of
from components.features.log_events import Events
from components.join.assemble import JoinJob, Past, join_shard
from components.join.attribution import Attribution
from components.join.config import JoinConfig
from tests.unit.join import oracle
from tests.unit.join.logs import DATASET, DAY, HOUR, actions, impressions

NUM_LOGS = int(os.environ.get("AFTERCLICK_RANDOM_LOGS", "250"))
FEATURES = FeatureConfig.parse(
    {
        "categorical": [
            {"name": "item_id", "num_rows": 8},
            {"name": "brand", "num_rows": 8},
            {"name": "brand_of_item_by_hour", "crossed": ["item_id", "brand", "hour_of_day"], "num_rows": 8},
            {"name": "price_range", "quantiles": {"number": "price", "buckets": 4}},
        ],
        "sequence": {"length": 3, "entities": ["item_id", "brand"]},
        "counts": {"entities": ["item_id", "brand"], "windows_days": [1, 2]},
        "engagement": {"entities": ["item_id", "brand"], "window_days": 2, "smoothing": 2.0},
        "since_last": ["any", "checkout"],
        "numbers": [{"name": "price", "flag_absent": True}],
    },
    "features",
)
EPOCH = date(1970, 1, 1)
# Whole hours make ties likely; odd microseconds make the edges of windows sharp.
moments = st.tuples(st.integers(0, 24 * 9), st.sampled_from([0, 0, 0, 1])).map(lambda when: when[0] * HOUR + when[1])
small = st.integers(0, 2)
shown_rows = st.lists(
    st.fixed_dictionaries(
        {
            "timestamp": moments,
            "user_id": small,
            "item_id": small,
            "brand": st.one_of(st.none(), small),
            "price": st.sampled_from([None, -1.5, 0.0, 2.0]),
        }
    ),
    max_size=14,
)
acted_rows = st.lists(
    st.fixed_dictionaries(
        {
            "timestamp": moments,
            "user_id": small,
            "item_id": st.one_of(st.none(), small),
            "brand": st.one_of(st.none(), small),
            "action_type": st.sampled_from(["click", "click", "add_to_cart", "checkout"]),
            "source": st.sampled_from(["onsite", "offsite"]),
            "impression_id": st.one_of(st.none(), st.integers(0, 13)),
            "dwell_seconds": st.sampled_from([None, 5.0, 30.0]),
            "value": st.sampled_from([None, 1.0, 2.5]),
        }
    ),
    max_size=18,
)
logs = st.tuples(shown_rows, acted_rows).map(
    lambda both: (
        [row | {"impression_id": number} for number, row in enumerate(both[0])],
        [row | {"action_id": number} for number, row in enumerate(both[1])],
    )
)


def joined_rows(shown, acted, first=0, last=9, rate=1.0, summarised=()):
    """Examples of some days from the events that are visible once the last of them is mature.

    The actions of `summarised` days come as a summary has them, beside those of the log.
    """
    first_day, last_day = EPOCH + timedelta(days=first), EPOCH + timedelta(days=last)
    as_of = DATASET.mature_on(last_day) + timedelta(days=1)
    cut = (as_of - EPOCH).days * DAY
    shown_table = impressions([row for row in shown if row["timestamp"] < cut])
    acted_table = actions([row for row in acted if row["timestamp"] < cut])
    names = FEATURES.engagement.entities
    engagement = merge_engagement(
        [
            count_engagement("impressions", Events.of(shown_table), names),
            count_engagement("actions", Events.of(acted_table), names),
        ]
    )
    config = JoinConfig(negative_keep_rate=rate)
    job = JoinJob(DATASET, FEATURES, config, first_day, last_day, as_of, last_day + timedelta(days=1))
    days = frozenset(EPOCH + timedelta(days=day) for day in summarised)
    events = Events.of(acted_table)
    of_days = np.isin(events.times // DAY, list(summarised))
    summary = HashedActions.of(events.take(of_days), FEATURES).to_table().cast(schema_of(FEATURES))
    history = HashedActions.from_table(summary.combine_chunks(), FEATURES)
    return join_shard(
        shown_table, acted_table, Past(history, days, EngagementIndex.of(engagement, FEATURES.engagement)), job
    )


@given(logs)
@settings(max_examples=NUM_LOGS, deadline=None)
def test_attribution_agrees_with_brute_force_and_with_sql(both):
    shown, acted = both
    shown_table, acted_table = impressions(shown), actions(acted)
    rows = Attribution(Events.of(shown_table), Events.of(acted_table), DATASET).credited
    expected = oracle.credited_impressions(shown, acted)
    assert [shown[row]["impression_id"] if row >= 0 else None for row in rows] == expected
    assert oracle.credited_by_sql(shown_table, acted_table) == {
        number: identifier for number, identifier in enumerate(expected) if identifier is not None
    }


@given(logs)
@settings(max_examples=NUM_LOGS, deadline=None)
def test_examples_agree_with_brute_force(both):
    shown, acted = both
    result = joined_rows(shown, acted)
    labels = oracle.labels(shown, acted)
    found = {row["impression_id"]: row for row in result.examples.to_pylist()}
    assert found.keys() == {row["impression_id"] for row in shown}
    for row in shown:
        expected = labels[row["impression_id"]] | oracle.features_of(row, shown, acted, FEATURES)
        example = found[row["impression_id"]]
        pairs = {name: (example[name], value) for name, value in expected.items()}
        assert not {name: pair for name, pair in pairs.items() if not oracle.close(*pair)}
    counts = result.counts
    assert counts["impressions"] == counts["impressions_kept"] == len(shown)
    assert counts["actions"] == counts["actions_attributed"] + counts["actions_unattributed"] == len(acted)


@given(logs)
@settings(max_examples=NUM_LOGS, deadline=None)
def test_crossed_ids_and_ranks_of_numbers_tell_apart_what_they_are_made_of(both):
    shown, acted = both
    examples = {row["impression_id"]: row for row in joined_rows(shown, acted).examples.to_pylist()}
    made_of = {
        "brand_of_item_by_hour": lambda row: (row["item_id"], row["brand"], row["timestamp"] // HOUR % 24),
        "price_range": lambda row: row["price"],
    }
    for name, parts in made_of.items():
        ids = [(examples[row["impression_id"]][name], parts(row)) for row in shown]
        assert len({own for own, _ in ids}) == len({own for _, own in ids}) == len({*ids})
    ranks = {row["price"]: examples[row["impression_id"]]["price_range"] for row in shown}
    assert sorted(ranks, key=lambda price: -9 if price is None else price) == sorted(ranks, key=ranks.__getitem__)


@given(logs, st.sets(st.integers(0, 9)))
@settings(max_examples=NUM_LOGS, deadline=None)
def test_summaries_of_days_stand_for_their_actions(both, summarised):
    shown, acted = both
    assert joined_rows(shown, acted, summarised=summarised).examples.equals(joined_rows(shown, acted).examples)


@given(logs, st.integers(2, 4))
@settings(max_examples=NUM_LOGS, deadline=None)
def test_mature_day_is_what_all_data_give(both, day):
    """What happens after a day's windows have closed changes nothing; neither does joining other days with it."""
    shown, acted = both
    start, end = day * DAY, (day + 1) * DAY
    alone = joined_rows(shown, acted, first=day, last=day).examples
    moment = alone["timestamp"].cast(pa.int64()).to_numpy()
    assert ((moment >= start) & (moment < end)).all() and alone["label_mature"].to_numpy().all()
    everything = joined_rows(shown, acted).examples
    moment = everything["timestamp"].cast(pa.int64()).to_numpy()
    assert alone.equals(everything.filter(pa.array((moment >= start) & (moment < end))))


@given(logs, st.sampled_from([0.05, 0.3, 0.7]))
@settings(max_examples=NUM_LOGS, deadline=None)
def test_sampling_drops_only_negatives_and_counts_them(both, rate):
    shown, acted = both
    everything, sampled = joined_rows(shown, acted).examples, joined_rows(shown, acted, rate=rate)
    kept = set(sampled.examples["impression_id"].to_pylist())
    positive = {
        row["impression_id"]
        for row in everything.to_pylist()
        if row["clicked"] or row["add_to_carts"] or row["checkouts"]
    }
    assert positive <= kept
    assert sampled.counts["impressions_kept"] == len(kept)
    assert sampled.counts["impressions_sampled_out"] == len(shown) - len(kept)
    same = everything.filter(pa.array([i in kept for i in everything["impression_id"].to_pylist()], pa.bool_()))
    assert same.drop(["negative_kept"]).equals(sampled.examples.drop(["negative_kept"]))
