"""Tables that were pretrained on the logs, and a ranker that starts from them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from functools import partial
from itertools import accumulate
from typing import Any, ClassVar

import numpy as np
import pyarrow.compute as pc
import torch
from torch import Tensor

from components.common import parquet_files
from components.common.errors import InputError
from components.common.layout import Store
from components.common.manifests import Manifest, read_manifest, verified_bytes, verified_content
from components.common.progress import log_line
from components.features.feature_list import FeatureConfig
from components.ranker.config import PretrainedConfig
from components.tables.embeddings import Embeddings
from components.tables.look_ups import double_of
from components.tables.model_state import MODEL_FILE
from components.tables.shard_layout import HeldRows
from components.tables.state_files import read_runs
from components.tables.table_model import TABLES_WEIGHT

KNOWN_FILE, NAMES_FILE = "known.parquet", "names.parquet"


class PretrainedManifest(Manifest):
    """Pretrained tables.

    Attributes:
        features: The feature list that the tables follow.
        embedding_dim: Numbers of a row.
        first_day: The window's first log day.
        through: Its last.
        recipe: All that decided the result.
        admitted: Ids of each table that were trained.
        seen: Ids of each table on any edge.
        root_mean_square: Of the numbers of each table's trained rows.
        epochs: For each epoch its stage, loss and Hit@3.
        popularity: Hit@3 of the most engaged items, among uniform candidates and among those by degree; empty
            if nobody engaged on the last day.
        parent: Digest of the tables that these were started from, or empty.
    """

    kind: ClassVar[str] = "pretrained_tables"

    features: FeatureConfig
    embedding_dim: int
    first_day: date
    through: date
    recipe: dict[str, Any]
    admitted: dict[str, int]
    seen: dict[str, int]
    root_mean_square: dict[str, float]
    epochs: tuple[dict[str, Any], ...]
    popularity: tuple[float, ...]
    parent: str = ""


def find_pretrained(store: Store, config: PretrainedConfig, title: str, last_day: date) -> PretrainedManifest:
    """The newest pretrained tables that know nothing of the days after `last_day`.

    Raises:
        InputError: If there are none, or they are too old.
    """
    days = [day for day in store.pretrained_days() if day <= last_day]
    if not days:
        raise InputError(
            f"{title}: {store.root} has no pretrained tables whose window ends by {last_day}, the batch's last day; "
            "run `afterclick pretrain`, or take `pretrained` out of the arm"
        )
    age, uri = (last_day - days[-1]).days, store.pretrained(days[-1])
    if age > config.refuse_after_days:
        raise InputError(
            f"{uri}: the window of these tables ended {age} days before the batch does, more than refuse_after_days = "
            f"{config.refuse_after_days}; run `afterclick pretrain`"
        )
    if age > config.warn_after_days:
        log_line("train", f"{title}: starts from tables that are {age} days old, more than {config.warn_after_days}")
    return read_manifest(uri, PretrainedManifest)


def start_from(
    embeddings: Embeddings,
    held: HeldRows,
    features: FeatureConfig,
    store: Store,
    manifest: PretrainedManifest,
    config: PretrainedConfig,
) -> dict[str, int]:
    """Put the trained rows of pretrained tables in place of drawn ones, at the ranker's own scale.

    Each number is multiplied by `scale * embedding_init / root_mean_square` of its table. Rows of ids that were on too
    few edges stay as they were drawn. Moments and frequencies are those of new rows: zero. Gated tables' doubles
    begin with the same trained rows.

    Args:
        embeddings: Of the ranker, or `ShardedEmbeddings`.
        held: The rows that this process holds.
        features: The ranker's.
        store: Where the tables are.
        manifest: Which.
        config: How.

    Returns:
        How many rows of each table were replaced, of all processes together.

    Raises:
        InputError: If the tables do not fit the ranker's.
    """
    uri = store.pretrained(manifest.through)
    tables = _fitting_tables(uri, manifest, features, config, embeddings.weight.shape[1])
    trained = _trained_rows(uri, manifest, tables)
    starts = _starts(manifest)
    read = partial(verified_bytes, uri, manifest)
    total = sum(manifest.features.tables.values())
    for first, run in read_runs(read, MODEL_FILE, TABLES_WEIGHT, total):
        for table in tables:
            ends = (starts[table], starts[table] + manifest.features.tables[table])
            start, stop = (min(max(end, first), first + len(run)) for end in ends)
            if start < stop:
                factor = config.scale * embeddings.deviation / manifest.root_mean_square[table]
                scaled = run[start - first : stop - first] * factor
                place, chosen = start - starts[table], trained[table][start - starts[table] : stop - starts[table]]
                for name in (table, double_of(table)) if table in config.gated_tables else (table,):
                    _put(embeddings.weight, held, embeddings.layout.first_rows[name] + place, scaled, chosen)
    return {table: int(rows.sum()) for table, rows in trained.items()}


def rows_of(read: Callable[[str], bytes], manifest: PretrainedManifest, table: str, ids: np.ndarray) -> np.ndarray:
    """The vectors of some ids of a table, float32, shape (n, dim); `read` gives a file's content."""
    code, total = manifest.features.binary_codes.get(table), sum(manifest.features.tables.values())
    blocks = np.stack(code.rows(ids) if code else [ids]) + _starts(manifest)[table]
    found = np.zeros((*blocks.shape, manifest.embedding_dim), dtype=np.float32)
    for start, run in read_runs(read, MODEL_FILE, TABLES_WEIGHT, total):
        inside = (blocks >= start) & (blocks < start + len(run))
        found[inside] = run.numpy()[blocks[inside] - start]
    return found.sum(0)


def _starts(manifest: PretrainedManifest) -> dict[str, int]:
    """Where each table begins in the weight of all."""
    sizes = manifest.features.tables
    return dict(zip(sizes, accumulate(sizes.values(), initial=0), strict=False))


def _fitting_tables(
    uri: str, manifest: PretrainedManifest, features: FeatureConfig, config: PretrainedConfig, dim: int
) -> list[str]:
    pretrained = {feature.name: feature for feature in manifest.features.categorical}
    own = {feature.name: feature for feature in features.categorical}
    if manifest.embedding_dim != dim:
        raise InputError(
            f"{uri}: rows of {manifest.embedding_dim} numbers, the arm's model.embedding_dim is {dim}; set "
            "pretrain.embedding_dim to it, and run `afterclick pretrain`"
        )
    for name in config.tables:
        if name not in pretrained:
            raise InputError(f"{uri}: no table {name!r}, but {sorted(pretrained)}; correct pretrained.tables")
        if not manifest.root_mean_square.get(name):
            raise InputError(
                f"{uri}: no row of {name} was trained: the contrastive stage is of users and items; add pretrain.graph"
            )
        if name not in own or own[name] != pretrained[name]:
            raise InputError(
                f"{uri}: features.categorical: {name} is {own.get(name)}, but was pretrained as {pretrained[name]}: an "
                "id would have another row; run `afterclick pretrain`"
            )
    return [*config.tables]


def row_mask(features: FeatureConfig, table: str, ids: np.ndarray) -> Tensor:
    """Which rows of a table some ids have, all blocks of a binary code; bool, shape (rows,)."""
    code, rows = features.binary_codes.get(table), torch.zeros(features.tables[table], dtype=torch.bool)
    for block in code.rows(ids) if code else [ids]:
        rows[torch.tensor(block)] = True
    return rows


def _trained_rows(uri: str, manifest: PretrainedManifest, tables: list[str]) -> dict[str, Tensor]:
    """Which rows of each table were trained, bool, shape (rows,)."""
    entry = next(entry for entry in manifest.files if entry.name == KNOWN_FILE)
    path, content = verified_content(uri, entry)
    known = parquet_files.read_parquet(path, content=content)
    trained = {}
    for table in tables:
        ids = known.filter(pc.equal(known["entity"], table))["id"].to_numpy()
        trained[table] = row_mask(manifest.features, table, ids)
    return trained


@torch.no_grad()
def _put(weight: Tensor, held: HeldRows, first_row: int, run: Tensor, chosen: Tensor) -> None:
    for piece in held.own_pieces(first_row, first_row + len(run)):
        own, rows = weight[piece.of_weight], chosen[piece.of_run].to(weight.device)
        own[rows] = run[piece.of_run].to(weight.device)[rows]
