"""The logs of one shard of users."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from components.features.events import LOG_NAMES, arrow_type
from components.features.feature_list import FeatureConfig
from components.features.hashed_actions import HashedActions, schema_of
from components.join import shards
from components.join.plan import HISTORY, JoinPlan, LogPart


def read_shard(plan: JoinPlan, parts: Iterable[LogPart]) -> dict[str, pa.Table]:
    """Each log of a shard in the log's order, in the same types whether the shard has any rows or values."""
    in_order, logs = sorted(parts), {}
    for log_name in LOG_NAMES:
        types = plan.identifiers[log_name]
        columns = plan.job.dataset.columns(log_name)
        schema = pa.schema([(c.name, arrow_type(c, types.get(c.name, pa.int64()))) for c in columns])
        tables = [
            shards.read_group(part.uri, part.batch).cast(schema) for part in in_order if part.log_name == log_name
        ]
        logs[log_name] = pa.concat_tables(tables) if tables else schema.empty_table()
    return logs


def read_history(features: FeatureConfig, parts: Iterable[LogPart]) -> HashedActions:
    """The shard's actions of days that are read from their summaries."""
    tables = [shards.read_group(part.uri, part.batch) for part in sorted(parts) if part.log_name == HISTORY]
    table = pa.concat_tables([schema_of(features).empty_table(), *tables]).combine_chunks()
    return HashedActions.from_table(table, features)
