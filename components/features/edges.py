"""Edges: what the logs of a day say of two ids, counted; tables are pretrained on them."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from components.common.beam import LOCAL_RUNNER, BeamOptions
from components.common.config import Config
from components.common.days import day_range
from components.common.errors import InputError
from components.common.manifests import Manifest
from components.features.events import ACTION_TYPES, ACTIONS, IMPRESSIONS, USER, DatasetConfig
from components.features.hashing import combine_hashes, feature_ids, splitmix64
from components.features.log_events import Events

_PAST = {"click": "clicked", "add_to_cart": "added", "checkout": "bought"}


class Relation(Config):
    """Edges of one kind: of actions between what they name, or of impressions, between an item and what it is of."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    source: str = Field(USER, description="column of the log that the edge starts from")
    target: str = Field("item_id", description="column that it leads to")
    action_type: Literal["click", "add_to_cart", "checkout"] | None = Field(
        None, description="of the actions that are its edges; impressions are, if not given"
    )
    weight: float = Field(1.0, gt=0, description="of its edges in the graph stage: how often a batch is drawn from it")

    @model_validator(mode="after")
    def _check_ends(self) -> Relation:
        if self.source == self.target:
            raise ValueError(f"relation {self.name}: source and target are both {self.source!r}; name two columns")
        if self.action_type is None and USER in (self.source, self.target):
            raise ValueError(
                f"relation {self.name}: every impression would be an engagement of its user; give action_type, or join "
                "two columns of the item"
            )
        return self

    @property
    def is_engagement(self) -> bool:
        """Whether its edges are pairs of the contrastive stage: what a user did with an item."""
        return self.source == USER and self.target == "item_id"


def edge_settings(relations: tuple[Relation, ...]) -> dict[str, Any]:
    """What decides which edges a day has, as plain values."""
    return {"relations": [relation.model_dump(mode="json", exclude={"weight"}) for relation in relations]}


class EdgesConfig(Config):
    """Which edges are collected, of which window of log days."""

    relations: tuple[Relation, ...] = Field(
        tuple(Relation(name=_PAST[name], action_type=name) for name in ACTION_TYPES), min_length=1
    )
    num_days: int | None = Field(None, ge=2, description="log days of a window; all since dataset.first_day if absent")
    beam_options: BeamOptions = LOCAL_RUNNER

    @model_validator(mode="after")
    def _check_names(self) -> EdgesConfig:
        names = [relation.name for relation in self.relations]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"relations: {twice[0]!r} is given twice; rename one")
        return self

    @property
    def entities(self) -> tuple[str, ...]:
        """The columns that edges join, in the order of their relations."""
        ends = (end for relation in self.relations for end in (relation.source, relation.target))
        return tuple(dict.fromkeys(ends))

    def window(self, dataset: DatasetConfig, through: date) -> list[date]:
        """The log days until one.

        Raises:
            InputError: If there are fewer than two: the last one judges the others.
        """
        first = dataset.first_day
        if self.num_days is not None:
            first = max(first, through - timedelta(days=self.num_days - 1))
        days = day_range(first, through)
        if len(days) < 2:
            raise InputError(
                f"pretrain: the window {first}..{through} has {len(days)} days; the last one judges the others: two "
                "are needed, so make the window end later"
            )
        return days

    def check_against(self, dataset: DatasetConfig) -> None:
        """Check that relations join columns that their logs have.

        Raises:
            ValueError: Naming the relation.
        """
        for relation in self.relations:
            log = IMPRESSIONS if relation.action_type is None else ACTIONS
            shared = {USER, *dataset.entities}
            known = shared | set(dataset.context_identifiers) if log == IMPRESSIONS else shared
            for end in (relation.source, relation.target):
                if end not in known:
                    raise ValueError(
                        f"pretrain.edges.relations: {relation.name}: {end!r} is no identifier of {log}, which have "
                        f"{sorted(known)}"
                    )


SCHEMA = pa.schema([("relation", pa.int16()), ("source", pa.int64()), ("target", pa.int64()), ("count", pa.int64())])
_KEYS = ("relation", "source", "target")
EDGES_FILE = "edges.parquet"


class EdgesManifest(Manifest):
    """The edges of one log day.

    Attributes:
        relations: Their names, by number.
        edges: Different ones of each relation.
        events: Rows of the logs that they stand for, likewise.
        without_id: Rows of the relation's log that lack one of its ids, likewise.
    """

    kind: ClassVar[str] = "edges"

    relations: tuple[str, ...]
    edges: tuple[int, ...]
    events: tuple[int, ...]
    without_id: tuple[int, ...]


def edges_of(log_name: str, events: Events, relations: tuple[Relation, ...]) -> tuple[pa.Table, np.ndarray]:
    """The edges of one log, counted, and how many rows lack an id; rows of `SCHEMA`, int64 of shape (relations,).

    An edge belongs to the day of the event that it is: a late conversion is an edge of the day on which it was made.
    """
    parts, without_id = [], np.zeros(len(relations), dtype=np.int64)
    for number, relation in enumerate(relations):
        if (relation.action_type is None) != (log_name == IMPRESSIONS):
            continue
        chosen = np.ones(len(events), dtype=bool)
        if log_name == ACTIONS:
            assert relation.action_type is not None
            chosen = events.where("action_type", relation.action_type)
        has_ids = chosen & events.known(relation.source) & events.known(relation.target)
        without_id[number] = chosen.sum() - has_ids.sum()
        size = int(has_ids.sum())
        columns = {
            "relation": np.full(size, number, dtype=np.int16),
            "source": feature_ids(events.hashed(relation.source)[has_ids]),
            "target": feature_ids(events.hashed(relation.target)[has_ids]),
            "count": np.ones(size, dtype=np.int64),
        }
        parts.append(pa.table(columns, schema=SCHEMA))
    return merge_edges(parts), without_id


def merge_edges(parts: list[pa.Table]) -> pa.Table:
    """Add up the counts of equal edges, in an order by hash that any order of merging gives.

    So a row group is a random part of its day.
    """
    if not parts:
        return SCHEMA.empty_table()
    grouped = pa.concat_tables(parts).group_by([*_KEYS], use_threads=False).aggregate([("count", "sum")])
    merged = pa.table({name: grouped[name if name in _KEYS else "count_sum"] for name in SCHEMA.names}).cast(SCHEMA)
    relation, source, target = (merged[name].to_numpy().astype(np.int64) for name in _KEYS)
    mixed = combine_hashes(splitmix64(source), target.view(np.uint64), relation.view(np.uint64))
    return merged.take(pa.array(np.lexsort((target, source, relation, mixed)))).combine_chunks()
