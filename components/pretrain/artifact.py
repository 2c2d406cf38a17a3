"""What pretraining leaves beside the tables: which ids were trained, at what scale, and what the most engaged are."""

from __future__ import annotations

from datetime import date

import numpy as np
import pyarrow as pa
import torch

from components.common import parquet_files
from components.common.layout import Store
from components.common.manifests import find_manifest, verified_content
from components.engagement.vocabulary import Known
from components.features.events import ACTIONS
from components.features.feature_list import FeatureConfig
from components.features.hashing import feature_ids, hash_identifiers
from components.features.log_manifests import CleanLogManifest
from components.pretrain.entity_model import EntityModel
from components.ranker.pretrained import row_mask
from components.tables.model_state import ModelState

_MOST_ENGAGED = 10_000
_ROWS_AT_ONCE = 1_000_000


def united(known: dict[str, dict[str, Known]]) -> dict[str, Known]:
    """The ids of each entity that any stage has trained, with their largest degree."""
    together: dict[str, Known] = {}
    for of_stage in known.values():
        for entity, own in of_stage.items():
            before = together.get(entity)
            if before is None:
                together[entity] = own
                continue
            ids = np.union1d(before.ids, own.ids)
            degrees = np.zeros(len(ids), dtype=np.int64)
            for part in (before, own):
                places = np.searchsorted(ids, part.ids)
                degrees[places] = np.maximum(degrees[places], part.degrees)
            together[entity] = Known(ids, degrees, max(before.num_seen, own.num_seen))
    return together


def known_table(known: dict[str, Known]) -> pa.Table:
    """Entity, id and degree of everything that was trained, as a table."""
    parts = [
        pa.table({"entity": pa.array([entity] * len(own.ids), pa.string()), "id": own.ids, "degree": own.degrees})
        for entity, own in known.items()
    ]
    return pa.concat_tables(parts)


@torch.no_grad()
def root_mean_squares(
    state: ModelState[EntityModel], features: FeatureConfig, known: dict[str, Known]
) -> dict[str, float]:
    """Of the numbers of each table's trained rows; all processes at once."""
    weight, found = state.model.embeddings.weight, {}
    first_rows = state.model.embeddings.layout.first_rows
    for entity, own in known.items():
        trained = row_mask(features, entity, own.ids)
        squares, numbers = 0.0, 0
        for piece in state.held.own_pieces(first_rows[entity], first_rows[entity] + len(trained)):
            chosen = weight[piece.of_weight][trained[piece.of_run].to(weight.device)]
            squares, numbers = squares + float(chosen.double().square().sum()), numbers + chosen.numel()
        sums = state.process.gathered((squares, numbers))
        mean = sum(part[0] for part in sums) / max(sum(part[1] for part in sums), 1)
        # Any number of processes comes to the same digits.
        found[entity] = float(f"{mean**0.5:.9g}")
    return found


def names_of(store: Store, days: list[date], features: FeatureConfig, items: Known) -> pa.Table:
    """The names in the logs of the most engaged items: id, name and degree, the most engaged first."""
    chosen = np.argsort(-items.degrees, kind="stable")[:_MOST_ENGAGED]
    wanted, ids, names = np.sort(items.ids[chosen]), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=object)
    for day in days:
        manifest = find_manifest(store.clean_logs(ACTIONS, day), CleanLogManifest)
        for entry in manifest.files if manifest else ():
            path, content = verified_content(store.clean_logs(ACTIONS, day), entry)
            for rows in parquet_files.read_parquet_batches(path, _ROWS_AT_ONCE, ["item_id"], content):
                distinct = rows["item_id"].combine_chunks().drop_null().unique()
                found = feature_ids(hash_identifiers(distinct)) % features.num_ids["item_id"]
                own = np.isin(found, wanted)
                ids = np.concatenate([ids, found[own]])
                names = np.concatenate([names, np.array(distinct.cast(pa.string()).to_pylist(), dtype=object)[own]])
                _, first = np.unique(names.astype(str), return_index=True)
                ids, names = ids[first], names[first]
    degrees = items.degrees[items.places(ids)] if len(ids) else np.zeros(0, dtype=np.int64)
    order = np.lexsort((names.astype(str), -degrees))
    return pa.table({"id": ids[order], "name": pa.array(names[order], pa.string()), "degree": degrees[order]})
