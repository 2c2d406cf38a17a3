"""Summaries of log days, made in the join's pipeline of the shards that are there anyway."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta

import apache_beam as beam
import numpy as np
import pyarrow as pa

from components.common import parquet_files, storage
from components.common.days import MICROSECONDS_PER_DAY, microseconds
from components.common.layout import Store
from components.common.manifests import read_manifest, verified_content, write_artifact
from components.features.engagement import SCHEMA, count_engagement, merge_engagement, on_one_day
from components.features.events import ACTIONS, LOG_NAMES
from components.features.hashed_actions import HashedActions, schema_of
from components.features.log_events import Events
from components.join import shards
from components.join.assemble import is_repeated
from components.join.plan import JoinPlan, LogPart
from components.join.read_shard import read_shard
from components.join.summaries import ACTIONS_FILE, ENGAGEMENT_FILE, SummaryManifest

_ROWS_MERGED_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class SummaryPiece:
    """One shard's part of a day's summary: a record batch of an Arrow file for each of the two, or None."""

    engagement_uri: str
    engagement: int | None
    actions_uri: str
    actions: int | None


class SummariseShard(beam.DoFn):
    """Summarises the missing days of one shard of users."""

    def __init__(self, plan: JoinPlan) -> None:
        """Follow `plan`."""
        self._plan = plan

    def process(self, element: tuple[int, Iterable[LogPart]]) -> Iterator[tuple[str, SummaryPiece]]:
        """Yield (day, piece)."""
        features, missing = self._plan.job.features, self._plan.reading.missing
        assert features is not None
        logs = read_shard(self._plan, element[1])
        engagement, actions = [], schema_of(features).empty_table()
        for name in LOG_NAMES:
            events = self._of_missing_days(Events.of(logs[name]), name)
            engagement.append(count_engagement(name, events, features.engagement.entities))
            if name == ACTIONS:
                actions = HashedActions.of(events, features).to_table()
        counted = merge_engagement(engagement)
        days = {microseconds(day) // MICROSECONDS_PER_DAY: str(day) for day in missing}
        uris = [self._plan.scratch("summaries", f"{kind}-{element[0]:04d}.arrow") for kind in ("engagement", "actions")]
        batches = [
            dict(shards.write_groups(uri, table, ordinals))
            for uri, table, ordinals in (
                (uris[0], counted, counted["day"].to_numpy().astype(np.int64)),
                (uris[1], actions, actions["timestamp"].to_numpy() // MICROSECONDS_PER_DAY),
            )
        ]
        for ordinal, day in days.items():
            if ordinal in batches[0] or ordinal in batches[1]:
                yield day, SummaryPiece(uris[0], batches[0].get(ordinal), uris[1], batches[1].get(ordinal))

    def _of_missing_days(self, events: Events, name: str) -> Events:
        """The events of missing days that repeat none."""
        missing = [microseconds(day) // MICROSECONDS_PER_DAY for day in self._plan.reading.missing]
        days = events.times // MICROSECONDS_PER_DAY
        near = np.isin(days, [*missing, *(day - 1 for day in missing)])
        if not near.all():
            events, days = events.take(near), days[near]
        return events.take(np.isin(days, missing) & ~is_repeated(events, name))


class WriteSummary(beam.DoFn):
    """Writes the summary of a day from all shards' parts; its bytes do not depend on how many there are."""

    def __init__(self, plan: JoinPlan) -> None:
        """Follow `plan`."""
        self._plan = plan

    def process(self, element: tuple[str, Iterable[SummaryPiece | None]]) -> Iterator[str]:
        """Yield the day."""
        features = self._plan.job.features
        assert features is not None
        day, pieces = date.fromisoformat(element[0]), [piece for piece in element[1] if piece is not None]
        counted = [(piece.engagement_uri, piece.engagement) for piece in pieces]
        acted = [(piece.actions_uri, piece.actions) for piece in pieces]
        engagement = merge_engagement(_batches(counted))
        actions = pa.concat_tables([schema_of(features).empty_table(), *_batches(acted)]).combine_chunks()
        order = np.lexsort([actions[name].to_numpy() for name in ("action", "timestamp", "user")])
        files = {ENGAGEMENT_FILE: engagement, ACTIONS_FILE: actions.take(pa.array(order))}

        def write(folder: str) -> None:
            for name, table in files.items():
                parquet_files.write_parquet(storage.join_uri(folder, name), table)

        manifest = SummaryManifest(origin=self._plan.reading.missing[day], actions=actions.num_rows)
        write_artifact(Store(self._plan.store_root).log_summary(day), manifest, write)
        yield element[0]


def _batches(places: list[tuple[str, int | None]]) -> list[pa.Table]:
    return [shards.read_group(uri, number) for uri, number in places if number is not None]


class WriteEngagement(beam.DoFn):
    """Writes the engagement of all days that the job asks for to a file that every shard reads.

    Days that every impression's window holds become one.
    """

    def __init__(self, plan: JoinPlan) -> None:
        """Follow `plan`."""
        self._plan = plan

    def process(self, _: None, made: list[str]) -> Iterator[str]:
        """Yield the file; `made` are the days whose summaries are new."""
        job = self._plan.job
        assert job.features is not None
        last_start = job.last_day - timedelta(days=job.features.engagement.window_days)
        shared, others, rows = [SCHEMA.empty_table()], [SCHEMA.empty_table()], 0
        for day in self._plan.reading.engagement:
            table = self._engagement_of(day)
            if last_start <= day < job.first_day:
                shared.append(on_one_day(table, job.first_day - timedelta(days=1)))
                rows += table.num_rows
                if rows > _ROWS_MERGED_AT_ONCE:
                    shared, rows = [merge_engagement(shared)], 0
            else:
                others.append(table)
        total = pa.concat_tables([*others, merge_engagement(shared)])
        uri = self._plan.scratch("engagement.arrow")
        shards.write_groups(uri, total, np.zeros(len(total), dtype=np.int64))
        yield uri

    def _engagement_of(self, day: date) -> pa.Table:
        folder = Store(self._plan.store_root).log_summary(day)
        uri, content = verified_content(folder, read_manifest(folder, SummaryManifest).entry(ENGAGEMENT_FILE))
        return parquet_files.read_parquet(uri, content=content)
