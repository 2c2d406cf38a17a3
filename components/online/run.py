"""Publishes the newest log day's online features, unless they are there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pyarrow as pa

from components.common import parquet_files, storage
from components.common.config import ResolvedConfig
from components.common.days import microseconds
from components.common.digests import digest_json
from components.common.errors import InputError
from components.common.layout import Store
from components.common.manifests import Step, find_current, verified_content, write_artifact
from components.common.progress import log_line
from components.features.engagement import EngagementIndex, merge_engagement, on_one_day
from components.features.events import DatasetConfig
from components.features.feature_kinds import EngagementFeatures
from components.features.feature_list import FeatureConfig
from components.features.hashed_actions import schema_of
from components.features.hashing import MISSING
from components.features.online_features import (
    ACTIONS_FILE,
    ENGAGEMENT_FILE,
    FIRST,
    USER,
    USERS_FILE,
    USERS_SCHEMA,
    OnlineManifest,
    actions_schema,
    engagement_names,
    engagement_schema,
    online_digest,
    online_settings,
)
from components.join import summaries
from components.join.assemble import JoinJob
from components.join.config import JoinConfig
from components.join.run import summarise_days
from components.online.config import OnlineConfig

STEP = Step("online-features")


@dataclass(frozen=True)
class OneDay:
    """Values of entities on one day, as engagement is looked up for; n rows.

    Attributes:
        times: Microseconds since the epoch, int64, shape (n,).
        values: By entity, hashed, uint64, shape (n,).
    """

    times: np.ndarray
    values: dict[str, np.ndarray]

    def hashed(self, column: str) -> np.ndarray:
        """An entity's values."""
        return self.values[column]


def publish_online(store: Store, job: JoinJob, config: OnlineConfig) -> OnlineManifest:
    """Publish what log days say for requests of the day `job.first_day`.

    Raises:
        InputError: If clean logs of days that features reach back to are missing.
    """
    features, day = job.features, job.first_day - timedelta(days=1)
    assert features is not None
    made = summarise_days(store.root, job)
    inputs = {"log_summaries": digest_json([[str(one), manifest.content_digest] for one, manifest in made.items()])}
    origin = STEP.origin(inputs, online_settings(features) | config.model_dump(mode="json"))
    uri = store.online_features(online_digest(features), day)
    found = find_current(uri, OnlineManifest, origin)
    if found is not None:
        log_line(STEP.name, f"{day}: there, nothing to do")
        return found
    actions = pa.concat_tables(
        [schema_of(features).empty_table(), *_tables(store, made.items(), summaries.ACTIONS_FILE)]
    )
    users, kept = newest_actions(actions, config.max_actions)
    since = job.first_day - timedelta(days=features.engagement.window_days)
    window = [(one, manifest) for one, manifest in made.items() if one >= since]
    counted = [on_one_day(table, day) for table in _tables(store, window, summaries.ENGAGEMENT_FILE)]
    engagement = engagement_on(job.first_day, merge_engagement(counted), features.engagement)
    files = {USERS_FILE: users, ACTIONS_FILE: kept.select(actions_schema(features).names), ENGAGEMENT_FILE: engagement}

    def write(folder: str) -> None:
        for name, table in files.items():
            # One batch, and mapped as it lies: no reader decodes it.
            (batch,) = table.combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], schema=table.schema)]
            with (
                storage.writing(storage.join_uri(folder, name)) as stream,
                pa.ipc.new_file(stream, table.schema) as file,
            ):
                file.write_batch(batch)

    manifest = OnlineManifest(origin=origin, users=len(users), actions=len(kept), left_out=len(actions) - len(kept))
    log_line(STEP.name, f"{day}: {len(kept)} actions of {len(users)} users, {manifest.left_out} left out")
    return write_artifact(uri, manifest, write)


def newest_actions(actions: pa.Table, most: int) -> tuple[pa.Table, pa.Table]:
    """Users, and up to `most` actions of each, in order of user and moment.

    Args:
        actions: Rows of `hashed_actions.schema_of`.
        most: The newest ones that are kept.

    Returns:
        Rows of `USERS_SCHEMA`, and of `actions`.
    """
    order = np.lexsort([actions[name].to_numpy() for name in ("action", "timestamp", USER)])
    ordered = actions[USER].to_numpy()[order]
    stops = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]) + 1, len(ordered)) if len(ordered) else order
    lengths = np.diff(stops, prepend=0)
    from_last = np.repeat(stops, lengths) - np.arange(len(ordered))
    kept = np.minimum(lengths, most)
    firsts = np.cumsum(kept) - kept
    users = pa.table({USER: ordered[stops - 1], FIRST: firsts}, schema=USERS_SCHEMA)
    return users, actions.take(pa.array(order[from_last <= most]))


def engagement_on(day: date, counts: pa.Table, features: EngagementFeatures) -> pa.Table:
    """What impressions on a day know of the entities' values, and, as `MISSING`, of all others.

    Args:
        day: Of the impressions.
        counts: Of the days that they know, rows of `engagement.SCHEMA`.
        features: Which entities, and how.

    Returns:
        Rows of `engagement_schema`.
    """
    number_of, every_value = counts["entity"].to_numpy(), counts["value"].to_numpy()
    values = {
        entity: np.union1d([MISSING], every_value[number_of == number])
        for number, entity in enumerate(features.entities)
    }
    size = max(map(len, values.values()), default=0)
    padded = {entity: np.pad(own, (0, size - len(own))) for entity, own in values.items()}
    columns = EngagementIndex.of(counts, features).columns(OneDay(np.full(size, microseconds(day)), padded))
    parts = []
    for number, (entity, own) in enumerate(values.items()):
        known = (columns[name][: len(own)] for name in engagement_names(entity))
        arrays = [np.full(len(own), number, np.int32), own, *known]
        parts.append(pa.Table.from_arrays([pa.array(array) for array in arrays], schema=engagement_schema()))
    return pa.concat_tables([engagement_schema().empty_table(), *parts])


def _tables(store: Store, made: Iterable[tuple[date, summaries.SummaryManifest]], name: str) -> Iterable[pa.Table]:
    for day, manifest in made:
        uri, content = verified_content(store.log_summary(day), manifest.entry(name))
        yield parquet_files.read_parquet(uri, content=content)


def main(store_uri: str, config_uri: str, as_of: str) -> None:
    """`publish_online` of the newest log day before `as_of` under a run's configuration.

    Raises:
        InputError: If there is none.
    """
    config, store = ResolvedConfig.open(config_uri), Store(store_uri)
    days = [day for day in store.clean_days() if day < date.fromisoformat(as_of)]
    if not days:
        raise InputError(f"{store_uri}: has no clean logs of a day before {as_of}; validate some")
    after = max(days) + timedelta(days=1)
    dataset, features = config.section(DatasetConfig, "dataset"), config.section(FeatureConfig, "features")
    job = JoinJob(dataset, features, config.section(JoinConfig, "join"), after, after, after, after)
    publish_online(store, job, config.section(OnlineConfig, "online"))
