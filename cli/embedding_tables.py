"""What every embedding table costs, and which ids it does not tell apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from rich.table import Table

from components.common.errors import InputError
from components.common.layout import Store
from components.common.manifests import read_manifest
from components.common.releases import read_pointer
from components.features.examples import EARLY, TRAINING, example_files
from components.features.feature_list import FeatureConfig
from components.features.learned_rows import RowIndex
from components.ranker.checkpoint import CheckpointManifest, read_indexes
from components.ranker.vocabularies import count_ids
from components.tables.config import OptimizerConfig
from components.train.config import TrainConfig


@dataclass(frozen=True)
class TableFacts:
    """One table.

    Attributes:
        table: Its name.
        rows: Its rows.
        megabytes: Its weights, float32.
        training_megabytes: Its weights and what the optimizer keeps beside them.
        ids_seen: Different ids in the training examples.
        ids_in_one: Of these, the ids whose rows are all those of another id too, or of ids that are not known: one to
            the model.
        rows_used: Rows that these ids look up.
    """

    table: str
    rows: int
    megabytes: float
    training_megabytes: float
    ids_seen: int
    ids_in_one: int
    rows_used: int


def production_arm(store: Store) -> str:
    """The arm in production; before the first publication, any."""
    pointer = read_pointer(store)
    return pointer.arm if pointer else next(iter(store.trained_models()), "")


def describe_tables(store: Store, arm: str) -> list[TableFacts]:
    """The tables of an arm's newest checkpoint, with the ids of the days that it was trained on.

    Raises:
        InputError: If the arm has no checkpoint.
    """
    known = store.trained_models()
    if arm not in known or not store.checkpoint_days(arm):
        raise InputError(f"{store.root}: the arm {arm!r} has no checkpoint; these have: {', '.join(known) or 'none'}")
    checkpoint = read_manifest(store.checkpoint(arm, store.checkpoint_days(arm)[-1]), CheckpointManifest)
    features, lineage = checkpoint.features, checkpoint.lineage
    split_of = dict.fromkeys(store.example_days(EARLY), EARLY) | dict.fromkeys(store.example_days(TRAINING), TRAINING)
    days = [day for day in sorted(split_of) if lineage.first_day <= day <= lineage.trained_through]
    uris = [uri for day in days for uri in example_files(store, split_of[day], day)]
    seen = count_ids(features, uris, features.tables)
    dim = checkpoint.model.embedding_dim
    kept = _bytes_kept(TrainConfig.parse(checkpoint.recipe, "recipe").optimizer, dim)
    gated = checkpoint.gated_tables
    indexes = read_indexes(store.checkpoint(arm, lineage.trained_through), checkpoint)
    return [
        _facts(features, indexes, table, ids, dim, kept, 2 if table in gated else 1) for table, (ids, _) in seen.items()
    ]


def _bytes_kept(config: OptimizerConfig, dim: int) -> int:
    """Bytes that the optimizer keeps beside a row."""
    by_number = 0 if config.tables == "rowwise_adagrad" else 8
    by_row = 4 * sum([config.tables == "rowwise_adagrad", config.counts_rows, config.bias_correction == "row"])
    return by_number * dim + by_row


def _facts(
    features: FeatureConfig,
    indexes: Mapping[str, RowIndex],
    table: str,
    ids: np.ndarray,
    dim: int,
    bytes_kept: int,
    num_weights: int,
) -> TableFacts:
    code, rows, num_ids = features.binary_codes.get(table), features.tables[table], len(ids)
    if table in indexes:
        ids = indexes[table].rows(ids)
    known, counts = np.unique(ids % features.num_ids[table], return_counts=True)
    used = np.unique(np.concatenate(code.rows(known))) if code else known
    megabytes = rows * dim * 4 / 1e6
    training = num_weights * (megabytes + rows * bytes_kept / 1e6)
    return TableFacts(table, rows, megabytes, training, num_ids, int(counts[counts > 1].sum()), len(used))


def tables_as_values(facts: list[TableFacts]) -> list[dict]:
    """The facts as plain values, for `--json`."""
    return [asdict(one) for one in facts]


def tables_table(facts: list[TableFacts], arm: str) -> Table:
    """The facts as a table for the terminal, with a line of totals."""
    shown = Table(title=f"Embedding tables of {arm}", title_justify="left")
    shown.add_column("table", overflow="fold")
    for heading in ("rows", "MB", "MB in training", "ids seen", "ids not told apart", "rows used"):
        shown.add_column(heading, justify="right")
    for one in facts:
        shared = f"{one.ids_in_one:,} ({one.ids_in_one / max(one.ids_seen, 1):.1%})"
        sizes = (f"{one.rows:,}", f"{one.megabytes:,.2f}", f"{one.training_megabytes:,.2f}", f"{one.ids_seen:,}")
        shown.add_row(one.table, *sizes, shared, f"{one.rows_used:,}")
    total, training = sum(one.megabytes for one in facts), sum(one.training_megabytes for one in facts)
    shown.add_section()
    shown.add_row("all", f"{sum(one.rows for one in facts):,}", f"{total:,.2f}", f"{training:,.2f}", "", "", "")
    return shown
