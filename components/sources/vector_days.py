"""Brings deliveries of pretrained vectors into the store: checked, hashed and in order of their ids."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.common import parquet_files, storage
from components.common.errors import InputError
from components.common.layout import Store
from components.common.manifests import Step, find_current, find_manifest, read_manifest, write_artifact
from components.common.progress import log_line
from components.features.events import IMPRESSIONS
from components.features.feature_kinds import VectorFeature
from components.features.hashing import feature_ids, hash_identifiers
from components.features.log_manifests import LOG_FILE, DeliveredLogManifest, QuarantineManifest
from components.features.vectors import ID, IDS_FILE, NUMBER, NUMBERS_FILE, VectorsManifest, type_of
from components.sources.config import VectorSource
from components.sources.log_files import PARQUET, FoundFiles, day_folders, find_files

STEP = Step("deliver_vectors")
# A version's tables have scales in float16: beyond these a vector could not be served, or only as zeros.
_LARGEST, _SMALLEST = 2.0**14, 2.0**-14
_TYPES = {"integer": pa.int64(), "string": pa.string()}


def deliver_vectors(store: Store, feature: VectorFeature, source: VectorSource, first: date, last: date) -> None:
    """Bring in what impressions of the days `first`..`last`, and of the day after them, know.

    Rows without a vector that could be used go to quarantine with their reason.

    Raises:
        InputError: If nothing was delivered before `last`, or a delivery cannot be read, or no row of it can be used.
    """
    folders = delivered_days(feature, source, last)
    known_first = max((number for number, day in enumerate(folders) if day < first), default=0)
    for day, folder in [*folders.items()][known_first:]:
        _deliver(store, feature, source, day, _files(feature, folder))
    age = (last - max(folders)).days
    if age > source.max_age_days:
        log_line(
            "deliver_vectors",
            f"ALARM: {feature.name} {last}: the newest delivery is {age} days old (vectors.{feature.name}.max_age_days "
            f"= {source.max_age_days}); see to {source.uri}",
        )


def delivered_days(feature: VectorFeature, source: VectorSource, last: date) -> dict[date, str]:
    """The folders of deliveries until a day, in order.

    Raises:
        InputError: If there is none before it.
    """
    folders = {day: folder for day, folder in sorted(day_folders(source.uri).items()) if day <= last}
    if min(folders, default=last) >= last:
        raise InputError(
            f"{source.uri}: has no folder event_date=YYYY-MM-DD of a day before {last}; deliver the vectors of "
            f"{feature.name}, or correct vectors.{feature.name}.uri"
        )
    return folders


@dataclass(frozen=True)
class DeliveredRows:
    """What a folder holds.

    Attributes:
        table: `id`, `vector`, `file` and `row`, k rows.
        reasons: Why a row cannot be used, null where it can.
        hashes: Of the ids, int64, shape (k,).
    """

    table: pa.Table
    reasons: pa.Array
    hashes: np.ndarray

    @classmethod
    def read(cls, feature: VectorFeature, source: VectorSource, folder: str) -> DeliveredRows:
        """Read all files of a folder.

        Raises:
            InputError: If there are none, or one cannot be read.
        """
        files = _files(feature, folder)
        table = pa.concat_tables([_read(file, name, feature, source) for file, name in files.names.items()])
        hashes = feature_ids(hash_identifiers(table["id"]))
        return cls(table, _reasons(table, hashes, feature.dim), hashes)

    @property
    def is_used(self) -> np.ndarray:
        """Which rows can be used, bool, shape (k,)."""
        return self.reasons.is_null().to_numpy(zero_copy_only=False)

    @property
    def counts(self) -> dict[str, int]:
        """Rows that cannot be used, by reason."""
        return {item["values"]: item["counts"] for item in pc.value_counts(self.reasons.drop_null()).to_pylist()}

    @property
    def id_type(self) -> Literal["int64", "string"]:
        """What the ids are."""
        return type_of(self.table.schema.field("id").type)


def _files(feature: VectorFeature, folder: str) -> FoundFiles:
    files = find_files(folder)
    if files is None or files.format != PARQUET:
        raise InputError(f"{folder}: has no Parquet files; deliver the vectors of {feature.name} as Parquet")
    return files


def _deliver(store: Store, feature: VectorFeature, source: VectorSource, day: date, files: FoundFiles) -> None:
    settings = {"feature": feature.model_dump(mode="json"), "id": source.id, "column": source.column}
    origin = STEP.origin(files.states, {**settings, "type": source.type})
    uri = store.vectors(feature.name, day)
    if find_current(uri, VectorsManifest, origin):
        return
    delivered = DeliveredRows.read(feature, source, files.uri)
    table, counts = delivered.table, delivered.counts
    order = np.flatnonzero(delivered.is_used)
    order = order[np.argsort(delivered.hashes[order], kind="stable")]
    if not len(order):
        raise InputError(f"{files.uri}: of {table.num_rows} vectors none can be used: {counts}; deliver them again")
    storage.remove(store.quarantine(f"vectors_{feature.name}", day))
    if counts:
        rejected = table.append_column("reason", delivered.reasons).filter(pa.array(~delivered.is_used))
        write_artifact(
            store.quarantine(f"vectors_{feature.name}", day),
            QuarantineManifest(origin=origin, reasons=counts),
            lambda folder: parquet_files.write_parquet(storage.join_uri(folder, LOG_FILE), rejected),
        )
    numbers = _numbers(table["vector"].combine_chunks().take(pa.array(order)), feature.dim)

    def write(folder: str) -> None:
        storage.write_bytes(storage.join_uri(folder, IDS_FILE), delivered.hashes[order].astype(ID).tobytes())
        storage.write_bytes(storage.join_uri(folder, NUMBERS_FILE), numbers.astype(NUMBER).tobytes())

    manifest = VectorsManifest(
        origin=origin, rows=len(order), dim=feature.dim, quarantined=counts, id_type=delivered.id_type
    )
    write_artifact(uri, manifest, write)
    aside = f", to quarantine: {counts}" if counts else ""
    log_line("deliver_vectors", f"{feature.name} {day}: {len(order)} vectors{aside}")


def check_id_types(store: Store, feature: VectorFeature, source: VectorSource, last: date) -> None:
    """Check that the newest ids are of the type that the logs have: others have other hashes, and would not be found.

    Raises:
        InputError: If they are not.
    """
    logs = store.delivered_logs(IMPRESSIONS, last)
    manifest = find_manifest(logs, DeliveredLogManifest)
    if manifest is None or not manifest.rows:
        return
    file = storage.join_uri(logs, manifest.files[0].name)
    if feature.entity not in parquet_files.parquet_columns(file):
        return
    column = parquet_files.read_parquet(file, [feature.entity])[0]
    day = max(day for day in store.vector_days(feature.name) if day <= last)
    delivered, logged = read_manifest(store.vectors(feature.name, day), VectorsManifest).id_type, type_of(column.type)
    if column.null_count < len(column) and logged != delivered:
        raise InputError(
            f"{source.uri}: ids of {day} are {delivered}, {feature.entity} of the impressions is {logged}; say "
            f"vectors.{feature.name}.type: {'integer' if logged == 'int64' else 'string'}"
        )


def _read(uri: str, name: str, feature: VectorFeature, source: VectorSource) -> pa.Table:
    """Ids, vectors as lists, the file and the row."""
    id_column = source.id or feature.entity
    there = parquet_files.parquet_columns(uri)
    for key, column in (("id", id_column), ("column", source.column)):
        if column not in there:
            raise InputError(f"{uri}: has no column {column!r}, but {there}; say vectors.{feature.name}.{key}")
    table = parquet_files.read_parquet(uri, [id_column, source.column])
    ids, vectors = (table[column].combine_chunks() for column in (id_column, source.column))
    if pa.types.is_dictionary(ids.type):
        ids = ids.cast(ids.type.value_type)
    if source.type is not None:
        try:
            ids = ids.cast(_TYPES[source.type])
        except pa.ArrowInvalid as error:
            raise InputError(f"{uri}: column {id_column!r}: {error}; correct vectors.{feature.name}.type") from error
    if not (pa.types.is_integer(ids.type) or pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type)):
        raise InputError(f"{uri}: column {id_column!r} is {ids.type}; ids are integers or strings")
    try:
        vectors = vectors.cast(pa.list_(pa.float32()))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"{uri}: column {source.column!r} is {vectors.type}; it must be lists of {feature.dim} numbers"
        ) from error
    rows = pa.array(np.arange(len(ids)))
    columns = [ids, vectors, pa.array([name] * len(ids), pa.string()), rows]
    return pa.table(columns, names=["id", "vector", "file", "row"])


def _reasons(table: pa.Table, hashes: np.ndarray, dim: int) -> pa.Array:
    """Why a row cannot be used, null where it can."""
    ids, vectors = (table[column].combine_chunks() for column in ("id", "vector"))
    reasons = np.full(table.num_rows, None, dtype=object)
    lengths = pc.fill_null(pc.list_value_length(vectors), -1).to_numpy(zero_copy_only=False)
    is_whole = lengths == dim
    numbers = np.zeros((table.num_rows, dim), dtype=np.float32)
    numbers[is_whole] = _numbers(vectors.filter(pa.array(is_whole)), dim)
    largest = np.abs(numbers).max(axis=1)
    for reason, is_so in (
        ("only_zeros", largest < _SMALLEST),
        ("too_large", largest > _LARGEST),
        ("not_finite", ~np.isfinite(numbers).all(axis=1)),
        ("of_another_length", ~is_whole),
        ("no_vector", lengths < 0),
        ("no_id", ids.is_null().to_numpy(zero_copy_only=False)),
    ):
        reasons[is_so] = reason
    usable = np.flatnonzero(reasons == None)  # noqa: E711
    _, first = np.unique(hashes[usable], return_index=True)
    reasons[np.delete(usable, first)] = "id_given_before"
    return pa.array(reasons, pa.string())


def _numbers(vectors: pa.ListArray, dim: int) -> np.ndarray:
    """Vectors of equal length, float32, shape (n, dim); what is null in one is NaN."""
    return vectors.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, dim)
