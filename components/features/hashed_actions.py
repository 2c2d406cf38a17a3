"""What features need of users' actions: moments, kinds and hashes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from components.features.events import ACTION_TYPES
from components.features.feature_list import FeatureConfig
from components.features.hashing import MISSING
from components.features.log_events import Events

_FIXED = (("user", pa.uint64()), ("timestamp", pa.int64()), ("action_type", pa.int8()), ("action", pa.uint64()))


@dataclass(frozen=True)
class HashedActions:
    """Actions of some users; arrays of shape (n,).

    Attributes:
        users: Hashed, uint64.
        times: Microseconds since the epoch, int64.
        codes: Places in `ACTION_TYPES`, int8.
        identifiers: Hashed action ids, uint64.
        entities: By name, hashed values, uint64; `MISSING` where there is none.
    """

    users: np.ndarray
    times: np.ndarray
    codes: np.ndarray
    identifiers: np.ndarray
    entities: dict[str, np.ndarray]

    @classmethod
    def of(cls, actions: Events, features: FeatureConfig) -> HashedActions:
        """What a feature list needs of a log's actions."""
        codes = np.zeros(len(actions), dtype=np.int8)
        for code, name in enumerate(ACTION_TYPES):
            codes[actions.where("action_type", name)] = code
        entities = {name: actions.hashed(name) for name in action_entities(features)}
        return cls(actions.users, actions.times, codes, actions.hashed("action_id"), entities)

    @classmethod
    def from_table(cls, table: pa.Table, features: FeatureConfig) -> HashedActions:
        """Rows of `schema_of`."""
        users, times, codes, identifiers = (table[name].to_numpy() for name, _ in _FIXED)
        entities = {name: table[f"of_{name}"].to_numpy() for name in action_entities(features)}
        return cls(users, times, codes, identifiers, entities)

    def to_table(self) -> pa.Table:
        """As rows of `schema_of`."""
        columns = dict(zip([name for name, _ in _FIXED], self._arrays, strict=False))
        return pa.table(columns | {f"of_{name}": values for name, values in self.entities.items()})

    @classmethod
    def together(cls, parts: Sequence[HashedActions]) -> HashedActions:
        """All actions of some parts, one at least."""
        users, times, codes, identifiers = (
            np.concatenate(arrays) for arrays in zip(*(part._arrays for part in parts), strict=True)
        )
        names = parts[0].entities
        entities = {name: np.concatenate([part.entities[name] for part in parts]) for name in names}
        return cls(users, times, codes, identifiers, entities)

    @property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        return self.users, self.times, self.codes, self.identifiers

    def __len__(self) -> int:
        """How many."""
        return len(self.users)

    def take(self, rows: np.ndarray) -> HashedActions:
        """Some of them, by number or as bool."""
        entities = {name: values[rows] for name, values in self.entities.items()}
        users, times, codes, identifiers = (values[rows] for values in self._arrays)
        return HashedActions(users, times, codes, identifiers, entities)

    def of_type(self, name: str) -> np.ndarray:
        """Which are of a type, bool."""
        return self.codes == ACTION_TYPES.index(name)

    def known(self, entity: str) -> np.ndarray:
        """Which have a value, bool."""
        return self.entities[entity] != MISSING


def action_entities(features: FeatureConfig) -> tuple[str, ...]:
    """The columns of actions that a feature list reads."""
    return tuple(dict.fromkeys((*features.sequence.entities, *features.counts.entities)))


def schema_of(features: FeatureConfig) -> pa.Schema:
    """The Arrow schema of hashed actions."""
    return pa.schema([*_FIXED, *((f"of_{name}", pa.uint64()) for name in action_entities(features))])
