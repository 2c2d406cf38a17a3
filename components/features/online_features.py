"""What log days say for the requests after them: users' recent actions and entities' engagement, by id.

The columns are those that the join makes examples of, so a request that is completed from here gets the features that
its example has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa

from components.common.days import microseconds
from components.common.digests import digest_json
from components.common.layout import Store
from components.common.manifests import Manifest, mapped_bytes, read_manifest
from components.features.feature_list import ENGAGEMENT_RATES, FeatureConfig, engagement_name, volume_name
from components.features.hashed_actions import HashedActions, action_entities, schema_of
from components.features.wall_clock import from_wall_clock

USERS_FILE, ACTIONS_FILE, ENGAGEMENT_FILE = "users.arrow", "actions.arrow", "engagement.arrow"
USER, FIRST, ENTITY, VALUE = "user", "first", "entity", "value"
USERS_SCHEMA = pa.schema([(USER, pa.uint64()), (FIRST, pa.int64())])


class OnlineManifest(Manifest):
    """The online features of the log days until one.

    `actions.arrow` has users' actions in order of user and moment; `users.arrow` each user, ascending, and where the
    user's actions begin; `engagement.arrow` each entity's values, ascending, with their columns, those of a value that
    the logs do not have first. All are Arrow IPC files of one batch that is not compressed, to be mapped.

    Attributes:
        users: With actions.
        actions: Of all users.
        left_out: Actions of users with more than are kept of each, the oldest.
    """

    kind: ClassVar[str] = "online_features"

    users: int
    actions: int
    left_out: int


@dataclass(frozen=True)
class KnownOnline:
    """What is known online for one request of n candidates.

    Attributes:
        actions: Of the user.
        engagement: By column of `engagement_names`, of the entities that were asked for, float32, shape (n,).
    """

    actions: HashedActions
    engagement: dict[str, np.ndarray]


@dataclass(frozen=True)
class OnlineFeatures:
    """The online features of the log days until one, mapped into memory where the store is local.

    Attributes:
        features: A feature list that they are for.
        day: The last log day.
        digest: Of its content.
        until: The end of that day on the logs' clock, in microseconds.
        users: Hashed, ascending, uint64, shape (u,).
        firsts: Where each one's actions begin, and after the last where they end, int64, shape (u + 1,).
        actions: Of all users.
        engagement: By entity, hashed values, ascending, uint64, shape (v,), and by name their columns, float32.
    """

    features: FeatureConfig
    day: date
    digest: str
    until: int
    users: np.ndarray
    firsts: np.ndarray
    actions: pa.RecordBatch
    engagement: dict[str, tuple[np.ndarray, dict[str, np.ndarray]]]

    @classmethod
    def open(cls, store: Store, features: FeatureConfig, day: date) -> Self:
        """Read those of a feature list.

        Raises:
            InputError: If they are absent or damaged.
        """
        uri = store.online_features(online_digest(features), day)
        manifest = read_manifest(uri, OnlineManifest)
        users, acted, engaged = (_mapped(uri, manifest, name) for name in (USERS_FILE, ACTIONS_FILE, ENGAGEMENT_FILE))
        firsts = np.append(users[FIRST].to_numpy(), acted.num_rows)
        numbers, engagement = engaged[ENTITY].to_numpy(), {}
        for number, entity in enumerate(features.engagement.entities):
            start, stop = np.searchsorted(numbers, [number, number + 1])
            value, *columns = (column.to_numpy() for column in engaged.slice(start, stop - start).columns[1:])
            engagement[entity] = value, dict(zip(engagement_names(entity), columns, strict=True))
        until = microseconds(day + timedelta(days=1))
        return cls(features, day, manifest.content_digest, until, users[USER].to_numpy(), firsts, acted, engagement)

    def look_up(self, user: int, entities: Mapping[str, np.ndarray]) -> KnownOnline:
        """What is known of a user and of candidates.

        Args:
            user: Hashed.
            entities: By entity whose engagement is asked for, hashed values of the candidates, uint64, shape (n,).
        """
        place = int(np.searchsorted(self.users, np.uint64(user)))
        is_known = place < len(self.users) and self.users[place] == user
        start, stop = self.firsts[place : place + 2] if is_known else (0, 0)
        acted = pa.Table.from_batches([self.actions.slice(start, stop - start)])
        owners = pa.array(np.full(len(acted), user, dtype=np.uint64))
        actions = HashedActions.from_table(acted.add_column(0, USER, owners), self.features)
        found: dict[str, np.ndarray] = {}
        for entity, asked in entities.items():
            values, columns = self.engagement[entity]
            places = np.searchsorted(values, asked).clip(max=len(values) - 1)
            places[values[places] != asked] = 0
            found |= {name: column[places] for name, column in columns.items()}
        return KnownOnline(actions, found)

    @property
    def until_seconds(self) -> float:
        """Seconds from 1970 to their end, in UTC."""
        return float(from_wall_clock(np.array([self.until]), self.features.timezone)[0]) / 1e6


def online_settings(features: FeatureConfig) -> dict[str, Any]:
    """What of a feature list decides the content."""
    return {
        "actions": list(action_entities(features)),
        "engagement": features.engagement.model_dump(mode="json"),
        "history_days": features.history_days,
        "timezone": features.timezone,
    }


def online_digest(features: FeatureConfig) -> str:
    """What feature lists have in common that the same online features are for."""
    return digest_json(online_settings(features))


def actions_schema(features: FeatureConfig) -> pa.Schema:
    """The columns of `actions.arrow`: those of hashed actions but the user."""
    return pa.schema([field for field in schema_of(features) if field.name != USER])


def engagement_schema() -> pa.Schema:
    """The columns of `engagement.arrow`: the entity's number, the hashed value, and what features take of it."""
    names = ("impressions", *(f"{rate}_rate" for rate in ENGAGEMENT_RATES))
    return pa.schema([(ENTITY, pa.int32()), (VALUE, pa.uint64()), *((name, pa.float32()) for name in names)])


def engagement_names(entity: str) -> tuple[str, ...]:
    """Their names as features of one entity."""
    return (volume_name(entity), *(engagement_name(entity, rate) for rate in ENGAGEMENT_RATES))


def _mapped(uri: str, manifest: OnlineManifest, name: str) -> pa.RecordBatch:
    return pa.ipc.open_file(pa.py_buffer(mapped_bytes(uri, manifest, name))).get_batch(0)
