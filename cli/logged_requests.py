"""Requests as servers would get them, made from a store's own logs: examples to try, and rows to check servers with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cli.inspection import open_store
from components.common import parquet_files
from components.common.days import day_range
from components.common.errors import InputError
from components.common.layout import Store
from components.common.manifests import find_manifest, verified_files
from components.common.releases import known_pointer
from components.features.events import ACTIONS, IMPRESSIONS, TIMESTAMP
from components.features.examples import EVALUATION, read_examples
from components.features.log_manifests import CleanLogManifest
from components.features.wall_clock import from_wall_clock
from components.version.request import RequestContract
from components.version.version import Version


@dataclass(frozen=True)
class LoggedRequest:
    """One moment of one user.

    Attributes:
        request: As in a request file.
        rows: Its candidates' rows among the day's evaluation examples.
    """

    request: dict[str, Any]
    rows: list[int]


def logged_requests(store: Store, day: date, contract: RequestContract) -> Iterator[LoggedRequest]:
    """What servers would have been asked on a day, the moments with the most candidates first.

    Raises:
        InputError: If the store has no evaluation examples or no clean logs of the day.
    """
    engagement, zone = list(contract.features.engagement_names), contract.features.timezone
    examples, _ = read_examples(store, EVALUATION, day, ["impression_id", *engagement])
    impressions = _clean_rows(store, IMPRESSIONS, [day], zone)
    first = day - timedelta(days=contract.features.history_days)
    actions = _clean_rows(store, ACTIONS, day_range(first, day), zone)
    places = pc.index_in(examples["impression_id"], value_set=impressions["impression_id"].combine_chunks())
    logged = impressions.take(places)
    moments = logged.select(["user_id", "timestamp"]).append_column("row", pa.array(range(len(logged))))
    groups = moments.group_by(["user_id", "timestamp"], use_threads=False).aggregate(
        [("row", "list"), ("row", "count")]
    )
    by_part = {part: [f for f in contract.fields.values() if f.part == part] for part in ("candidates", "actions")}
    columns = [field.column for field in by_part["candidates"]]
    values = {name: (examples if name in engagement else logged)[name].to_pylist() for name in columns}
    for group in groups.sort_by([("row_count", "descending"), ("user_id", "ascending")]).to_pylist():
        user = {"user_id": group["user_id"], "timestamp": group["timestamp"].isoformat()}
        own = actions.filter(pc.equal(actions["user_id"], group["user_id"]))
        acted = own.select([field.column for field in by_part["actions"]]).to_pylist()
        request = {
            "user": user,
            "candidates": [{name: values[name][row] for name in columns} for row in group["row_list"]],
            "actions": [action | {"timestamp": action["timestamp"].isoformat()} for action in acted],
        }
        yield LoggedRequest(request, group["row_list"])


def _clean_rows(store: Store, log_name: str, days: list[date], zone: str) -> pa.Table:
    """Clean rows with their times in UTC, as requests say them; logs are by the zone's clocks."""
    parts = []
    for day in days:
        uri = store.clean_logs(log_name, day)
        manifest = find_manifest(uri, CleanLogManifest)
        parts += [parquet_files.read_parquet(path) for path in (verified_files(uri, manifest) if manifest else [])]
    if not parts:
        raise InputError(f"{store.clean_logs(log_name, days[-1])}: no clean {log_name}; run the pipeline for this day")
    rows = pa.concat_tables(parts, promote_options="permissive")
    times = from_wall_clock(rows["timestamp"].cast(pa.int64()).to_numpy(), zone)
    return rows.set_column(rows.column_names.index("timestamp"), "timestamp", pa.array(times).cast(TIMESTAMP))


def logged_request(store_uri: str, day: date | None, rank: int) -> dict[str, Any]:
    """One request of a day, for the version in production.

    Raises:
        InputError: If nothing is published, or the day has no such moment.
    """
    store = open_store(store_uri)
    pointer = known_pointer(store)
    chosen = day or max(store.ledger_days())
    requests = logged_requests(store, chosen, Version.published(store, pointer.version).contract())
    request = next(islice(requests, rank, None), None)
    if request is None:
        raise InputError(f"{chosen}: has no more than {rank} moments")
    return request.request
