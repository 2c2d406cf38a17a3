"""What a request carries, derived from the feature list: one user, the user's earlier actions, and candidates.

All values are raw, as in the logs, and become features by the join's own code. Only the daily engagement of entities,
which no single request can tell, comes as numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.common.errors import InputError
from components.features.encoding import (
    ListPositions,
    encode_categorical,
    encode_dense,
    encode_lists,
    encode_owners,
    encode_sequences,
    with_owners,
)
from components.features.events import ACTION_TYPES, ACTIONS, IMPRESSIONS
from components.features.example_columns import (
    categorical_columns,
    count_columns,
    list_columns,
    number_columns,
    sequence_columns,
)
from components.features.feature_list import CLOCK_FEATURES, FeatureConfig
from components.features.hashed_actions import HashedActions
from components.features.hashing import hash_identifiers, splitmix64
from components.features.online_features import KnownOnline, engagement_names
from components.features.wall_clock import to_wall_clock
from components.version.request_field import Field, Part, column_of
from components.version.wire_names import LENGTHS_SUFFIX, VALID_SUFFIX

_ACTION_TYPES = pa.array(ACTION_TYPES)
_KINDS = {"int64": "INT64", "string": "BYTES"}


@dataclass(frozen=True)
class HashedRows:
    """What features read of n rows of impressions, as `Events` has it.

    Attributes:
        times: Microseconds since the epoch on the log's clock, int64, shape (n,).
        users: Hashed users, uint64, shape (n,).
        hashes: Of identifiers by column, uint64, shape (n,).
        numbers: By column, float64, NaN where absent, shape (n,).
        of_lists: By column, n lists of identifiers or weights.
    """

    times: np.ndarray
    users: np.ndarray
    hashes: dict[str, np.ndarray]
    numbers: dict[str, np.ndarray]
    of_lists: dict[str, pa.ListArray]

    def hashed(self, column: str) -> np.ndarray:
        """A hashed identifier column."""
        return self.users if column == "user_id" else self.hashes[column]

    def number(self, column: str) -> np.ndarray:
        """A numeric column."""
        return self.numbers[column]

    def lists(self, column: str) -> pa.ListArray:
        """A column of lists."""
        return self.of_lists[column]

    def first(self) -> HashedRows:
        """The first row, without its lists."""
        hashes, numbers = ({name: values[:1] for name, values in own.items()} for own in (self.hashes, self.numbers))
        return HashedRows(self.times[:1], self.users[:1], hashes, numbers, {})


@dataclass(frozen=True)
class RawRequest:
    """A checked request of n candidates.

    Attributes:
        candidates: As rows of impressions, n of them.
        user: The first of them.
        actions: Of the user.
        given: Dense columns that came as numbers, by name.
        positions: Of the candidates' lists.
    """

    candidates: HashedRows
    user: HashedRows
    actions: HashedActions
    given: dict[str, np.ndarray]
    positions: ListPositions

    def completed(self, known: KnownOnline) -> RawRequest:
        """With what is known online: engagement that was not sent, and actions before the first one that was."""
        earliest = self.actions.times.min(initial=np.iinfo(np.int64).max)
        earlier = known.actions.take(known.actions.times < earliest)
        actions = HashedActions.together([earlier, self.actions])
        return replace(self, given=known.engagement | self.given, actions=actions)


@dataclass(frozen=True)
class Limits:
    """The limits of one request.

    Attributes:
        candidates: At most.
        actions: At most.
        ignore_unknown: Whether inputs that the version does not know are left out instead of refused.
        lacking_engagement: Whether engagement may be missing, which `RawRequest.completed` adds.
    """

    candidates: int = 2000
    actions: int = 20_000
    ignore_unknown: bool = False
    lacking_engagement: bool = False


class RequestContract:
    """The request of one version: its tensors, and their way to the model's inputs."""

    def __init__(self, features: FeatureConfig, identifiers: Mapping[str, Mapping[str, str]]) -> None:
        """Derive the tensors.

        Args:
            features: The version's feature list.
            identifiers: By log and column, `int64` or `string`.
        """
        self.features = features
        self._given, self._given_names = features.engagement_names, frozenset(features.engagement_names)
        entities = dict.fromkeys((*features.sequence.entities, *features.counts.entities))
        context = dict.fromkeys(
            ("item_id", *features.identifiers, *features.counts.entities, *features.engagement.entities)
        )
        candidate_ids = [name for name in context if name not in (*CLOCK_FEATURES, "user_id")]

        def identifier(column: str, part: Part, required: bool) -> Field:
            log = identifiers.get(ACTIONS if part == "actions" else IMPRESSIONS, {})
            kind = log.get(column, "string")
            return Field(column, part, "identifier", _KINDS[kind], required)

        self.fields = {
            field.name: field
            for field in (
                Field("timestamp", "user", "timestamp", "INT64", True),
                identifier("user_id", "user", True),
                *(identifier(name, "candidates", name == "item_id") for name in candidate_ids),
                *(Field(name, "candidates", "number", "FP32", False) for name in features.number_columns),
                *(Field(name, "candidates", "number", "FP32", True) for name in self._given),
                *(self._list(name, identifiers) for name in features.list_columns),
                Field("timestamp", "actions", "timestamp", "INT64", True),
                Field("action_type", "actions", "action_type", "BYTES", True),
                identifier("action_id", "actions", True),
                *(identifier(name, "actions", False) for name in entities),
            )
        }
        optional = [field.beside for field in self.fields.values() if not field.required]
        self._known = frozenset([*self.fields, *optional])
        self._required = frozenset(field.name for field in self.fields.values() if field.required)

    def _list(self, column: str, identifiers: Mapping[str, Mapping[str, str]]) -> Field:
        if column not in self.features.list_positions:
            return Field(column, "candidates", "weights", "FP32", False)
        kind = identifiers.get(IMPRESSIONS, {}).get(column, "string")
        return Field(column, "candidates", "identifiers", _KINDS[kind], False)

    def read(self, tensors: Mapping[str, np.ndarray], limits: Limits) -> RawRequest:
        """Check a request's tensors; those of candidates may have one value for all of them.

        Raises:
            InputError: Naming the tensor, the value and what it must be.
        """
        self._check_names(tensors, limits)
        num_rows = {
            "user": 1,
            "candidates": self._count(tensors, "candidates", 1, limits.candidates),
            "actions": self._count(tensors, "actions", 0, limits.actions),
        }
        columns: dict[Part, dict[str, pa.Array | np.ndarray]] = {"user": {}, "candidates": {}, "actions": {}}
        lacking = self._given_names - tensors.keys() if limits.lacking_engagement else frozenset()
        for field in self.fields.values():
            if field.name in lacking:
                continue
            column = column_of(field, tensors, num_rows[field.part])
            if field.kind == "timestamp":
                column = to_wall_clock(column, self.features.timezone)
            columns[field.part][field.column] = column
        user, candidates, acted = columns["user"], columns["candidates"], columns["actions"]
        given = {name: candidates.pop(name) for name in self._given if name not in lacking}
        numbers = {name: candidates.pop(name) for name in self.features.number_columns}
        lists = {name: candidates.pop(name) for name in self.features.list_columns}
        size = num_rows["candidates"]
        users = np.repeat(hash_identifiers(user["user_id"]), size)
        rows = HashedRows(np.repeat(user["timestamp"], size), users, _hashed(candidates), numbers, lists)
        kinds = pc.index_in(acted.pop("action_type"), value_set=_ACTION_TYPES).to_numpy(zero_copy_only=False)
        times, hashes = acted.pop("timestamp"), _hashed(acted)
        identifiers, entities = hashes.pop("action_id"), hashes
        acting = np.full(len(times), users[0])
        actions = HashedActions(acting, times, kinds.astype(np.int8), identifiers, entities)
        return RawRequest(rows, rows.first(), actions, given, self._positions(rows))

    def _positions(self, rows: HashedRows) -> ListPositions:
        try:
            return encode_lists(list_columns(rows, self.features), self.features)
        except ValueError as error:
            raise InputError(f"input {error}; give one weight for each identifier") from error

    def ids(self, request: RawRequest) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What is looked up: ids (n, C + P + F), the user's sequence (1, L, S), and its used positions (1,), int64."""
        columns = categorical_columns(request.candidates, self.features)
        categorical = encode_categorical(columns, self.features, request.positions)
        categorical = with_owners(categorical, encode_owners(columns, self.features))
        lists = sequence_columns(request.user, request.actions, self.features)
        return categorical, *encode_sequences(lists, self.features)

    def dense(self, request: RawRequest) -> np.ndarray:
        """Dense features, float32, shape (n, D)."""
        columns = {
            **number_columns(request.candidates, self.features),
            **count_columns(request.candidates, request.actions, self.features),
            **request.given,
        }
        return encode_dense(columns, self.features, request.positions)

    def _check_names(self, tensors: Mapping[str, np.ndarray], limits: Limits) -> None:
        for name in tensors:
            if name in self._known:
                continue
            owner = name.removesuffix(VALID_SUFFIX)
            if (plain := name.removesuffix(LENGTHS_SUFFIX)) in self.fields:
                raise InputError(f"input {plain!r} takes one value for each of the {self.fields[plain].part}, no lists")
            if owner in self.fields and self.fields[owner].required:
                raise InputError(f"input {owner!r} must have a value in every row; it has {_first_gap(tensors[name])}")
            if not limits.ignore_unknown:
                raise InputError(f"input {name!r} is unknown; the version takes {sorted(self.fields)}")
        needed = self._required - self._given_names if limits.lacking_engagement else self._required
        self._check_there(needed, tensors)

    def entities(self, request: RawRequest) -> dict[str, np.ndarray]:
        """Hashed entities whose engagement is not, or not all, there, uint64, shape (n,), by name."""
        return {
            entity: request.candidates.hashed(entity)
            for entity in self.features.engagement.entities
            if not request.given.keys() >= {*engagement_names(entity)}
        }

    def check_complete(self, request: RawRequest) -> None:
        """Check that engagement is there, of which `Limits` said that it may be missing.

        Raises:
            InputError: Naming what is not.
        """
        self._check_there(self._given_names, request.given)

    def _check_there(self, needed: frozenset[str], given: Mapping[str, np.ndarray]) -> None:
        if needed <= given.keys():
            return
        missing = [self.fields[name] for name in self.fields if name in needed and name not in given]
        for part in ("user", "candidates"):
            names = [f"{field.name} {field.datatype}" for field in missing if field.part == part]
            if names:
                raise InputError(f"inputs of the {part} are missing: {', '.join(names)}")

    def _count(self, tensors: Mapping[str, np.ndarray], part: Part, least: int, most: int) -> int:
        """Rows of a part: the longest of its tensors."""
        named = [field.sized_by for field in self.fields.values() if field.part == part]
        sizes = {name: tensors[name].size for name in named if name in tensors}
        name, count = max(sizes.items(), key=lambda item: item[1], default=(part, 0))
        if not least <= count <= most:
            raise InputError(f"input {name!r} has {count} values: {part} must be from {least} to {most} a request")
        return count


def _first_gap(valid: np.ndarray) -> str:
    rows = np.flatnonzero(valid == 0)
    return f"none in row {rows[0]}" if len(rows) else "a tensor that says which are there; leave that out"


def _hashed(columns: Mapping[str, pa.Array | np.ndarray]) -> dict[str, np.ndarray]:
    """Identifier columns of equal length hashed, uint64; those of plain integers all at once."""
    integers = {name: values for name, values in columns.items() if isinstance(values, np.ndarray)}
    together = splitmix64(np.stack([*integers.values()])) if integers else ()
    hashes = dict(zip(integers, together, strict=True))
    return {name: hashes[name] if name in hashes else hash_identifiers(values) for name, values in columns.items()}
