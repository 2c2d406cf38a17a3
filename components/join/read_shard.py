"""The logs of one shard of users."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from components.features.events import LOG_NAMES, arrow_type
from components.features.feature_list import FeatureConfig
from components.features.hashed_actions import HashedActions, schema_of
from components.join import shards
from components.join.plan import HISTORY, JoinPlan


def read_shard(plan: JoinPlan, files: Iterable[tuple[str, str]]) -> dict[str, pa.Table]:
    """Each log of a shard in the log's order, in the same types whether the shard has any rows or values."""
    paths = sorted(files)
    logs = {}
    for log_name in LOG_NAMES:
        types = plan.identifiers[log_name]
        columns = plan.job.dataset.columns(log_name)
        schema = pa.schema([(c.name, arrow_type(c, types.get(c.name, pa.int64()))) for c in columns])
        parts = [shards.read_arrow(path).cast(schema) for name, path in paths if name == log_name]
        logs[log_name] = pa.concat_tables(parts) if parts else schema.empty_table()
    return logs


def read_history(features: FeatureConfig, files: Iterable[tuple[str, str]]) -> HashedActions:
    """The shard's actions of days that are read from their summaries."""
    parts = [shards.read_arrow(path) for name, path in sorted(files) if name == HISTORY]
    table = pa.concat_tables([schema_of(features).empty_table(), *parts]).combine_chunks()
    return HashedActions.from_table(table, features)
