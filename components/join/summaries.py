"""What a log day says for the examples of all later days, worked out once: engagement, and users' hashed actions.

Identifiers that were used before are left out, so a summary follows from the logs of its day and of the day before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import ClassVar

import pyarrow as pa

from components.common.days import day_range
from components.common.digests import digest_json
from components.common.layout import Store
from components.common.manifests import FileEntry, Manifest, Origin, Step, find_current
from components.features.events import LOG_NAMES
from components.features.feature_list import FeatureConfig
from components.features.hashed_actions import action_entities
from components.features.log_manifests import CleanLogManifest

STEP = Step("summarise-logs")
ENGAGEMENT_FILE, ACTIONS_FILE = "engagement.parquet", "actions.parquet"
CleanLogs = dict[date, dict[str, CleanLogManifest]]
_DAY = timedelta(days=1)


class SummaryManifest(Manifest):
    """What one log day says.

    Attributes:
        actions: Hashed actions of the day.
    """

    kind: ClassVar[str] = "log_summary"
    is_remembered: ClassVar[bool] = True

    actions: int

    def entry(self, name: str) -> FileEntry:
        """One of the two files."""
        return next(entry for entry in self.files if entry.name == name)


@dataclass(frozen=True)
class Reading:
    """Which log days a join reads in which form.

    Attributes:
        logs: Days whose logs are read.
        missing: Days whose summaries are to be made of them, and from what.
        history: Days whose actions are read from their summaries, all others' from the logs.
        engagement: Days whose engagement is read, from summaries that were there or were made.
    """

    logs: tuple[date, ...]
    missing: dict[date, Origin]
    history: dict[date, SummaryManifest]
    engagement: tuple[date, ...]

    @classmethod
    def of(
        cls,
        store: Store,
        features: FeatureConfig | None,
        labelled: list[date],
        first: date,
        last: date,
        clean: CleanLogs,
        types: dict[str, dict[str, pa.DataType]],
    ) -> Reading:
        """Find out what is there.

        Args:
            store: Where summaries are.
            features: The feature list; without one there are none.
            labelled: Days whose logs labels depend on.
            first: First day of examples.
            last: Last day of examples.
            clean: The logs that there are.
            types: Of each log's identifiers.
        """
        if features is None:
            return cls(tuple(day for day in labelled if day in clean), {}, {}, ())
        since = first - timedelta(days=features.history_days)
        needed = [day for day in day_range(since, last - _DAY) if day in clean] if since < last else []
        origins = {day: _origin(features, clean, day, types) for day in needed}
        found = {day: find_current(store.log_summary(day), SummaryManifest, origins[day]) for day in needed}
        missing = {day: origins[day] for day in needed if found[day] is None}
        logs = {*labelled, *missing, *(day - _DAY for day in missing)} & {*clean}
        # A repeat is known as one by the day before it.
        whole = {day for day in logs if day - _DAY in logs or day - _DAY not in clean}
        history = {day: manifest for day, manifest in found.items() if manifest is not None and day not in whole}
        engagement_since = first - timedelta(days=features.engagement.window_days)
        engagement = tuple(day for day in needed if day >= engagement_since)
        return cls(tuple(sorted(logs)), missing, history, engagement)


def _origin(features: FeatureConfig, clean: CleanLogs, day: date, types: dict[str, dict[str, pa.DataType]]) -> Origin:
    read = [before for before in (day - _DAY, day) if before in clean]
    digests = [[name, str(one), manifest.content_digest] for one in read for name, manifest in clean[one].items()]
    settings = {
        "engagement": list(features.engagement.entities),
        "actions": list(action_entities(features)),
        # Hashes are of the type that the join reads a column in.
        "identifiers": {
            name: sorted({(column, str(types[name][column])) for one in read for column in _known(clean[one], name)})
            for name in LOG_NAMES
        },
    }
    return STEP.origin({"clean_logs": digest_json(digests)}, settings)


def _known(manifests: dict[str, CleanLogManifest], name: str) -> list[str]:
    return [*manifests[name].identifier_types] if name in manifests else []
