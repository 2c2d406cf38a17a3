"""Exports the checkpoints that a blessing names."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
from torch import nn

from components.common import storage
from components.common.config import ResolvedConfig
from components.common.errors import InputError
from components.common.layout import Store
from components.common.manifests import Step, find_current, read_manifest, write_artifact
from components.common.progress import log_line
from components.common.records import write_record
from components.common.releases import Blessing, Export, ExportedVersion, Release, read_blessing
from components.export.comparison import Reference, Withheld, beyond_limits, check_exported, predict_both
from components.export.config import ExportConfig
from components.export.look_up_counts import count_look_ups, most_frequent
from components.export.onnx_export import export_onnx, packed_inputs
from components.export.onnx_graphs import GraphCache
from components.export.served_ranker import PackedRanker, ServedRanker
from components.export.single_file import check_size, compare_single_file, export_single_file
from components.export.vector_tables import VectorTables
from components.features.events import LOG_NAMES
from components.features.examples import EVALUATION, read_examples
from components.features.log_manifests import CleanLogManifest
from components.features.objectives import OBJECTIVE_NAMES
from components.ranker.checkpoint import CheckpointManifest, TrainedRanker
from components.version.int4 import finest_layout
from components.version.manifest import IDS_FILE, ONNX_INPUTS, PREDICTOR_FILE, RANKER_FILE, TABLES_FILE, VersionManifest
from components.version.packed_ids import pack_ids
from components.version.packed_tables import PackedTable
from components.version.parity import Parity, TableParity
from components.version.predictor import Predictor
from components.version.table_packing import bytes_of, pack_tables

STEP = Step("export")
# Settings that decide what is in the files; the others only limit it.
_OF_FILES = {"opset", "max_table_error", "single_file", "int8_share", "served"}


def export_releases(store_uri: str, config: ExportConfig, pipeline: str, event_date: date) -> Export:
    """Export what the blessing of a run allows to publish, and compare it with torch on that day's rows.

    The files go where no server looks; `publish` moves them. A version that does not predict what its checkpoint
    predicts is withheld, with its reason; the next day's may pass.

    Returns:
        What became of each release, in order.

    Raises:
        InputError: If there is no such blessing, or its checkpoint is not the one in the store.
    """
    store = Store(store_uri)
    blessing = read_blessing(store, pipeline, event_date)
    if blessing is None or not blessing.releases:
        raise InputError(
            f"{store.blessing(pipeline, event_date)}: allows nothing to be exported; the gate decides first"
        )
    versions = []
    for release in blessing.releases:
        digest = release.checkpoint_digest
        try:
            manifest = _export(store, config, blessing, release)
            versions.append(ExportedVersion(checkpoint_digest=digest, version=manifest.version_digest))
        except Withheld as error:
            log_line("export", f"{event_date}: {release.action} of {release.arm} is withheld: {error}")
            versions.append(ExportedVersion(checkpoint_digest=digest, withheld=str(error)))
    export = Export(pipeline=pipeline, event_date=event_date, versions=tuple(versions))
    write_record(store.export(pipeline, event_date), export)
    return export


def _export(store: Store, config: ExportConfig, blessing: Blessing, release: Release) -> VersionManifest:
    uri = store.staged_version(release.checkpoint_digest)
    settings = config.model_dump(include=_OF_FILES)
    checkpoint = read_manifest(store.checkpoint(release.arm, release.trained_through), CheckpointManifest)
    vectors = VectorTables.of(store, checkpoint.features, blessing.event_date, checkpoint.model.embedding_dim)
    inputs = {"checkpoint": release.checkpoint_digest}
    origin = STEP.origin(inputs | ({"vectors": vectors.known.digest} if vectors.known else {}), settings)
    current = find_current(uri, VersionManifest, origin)
    if current is not None:
        return current
    ranker = TrainedRanker.load(store, release.arm, release.trained_through)
    digest = ranker.checkpoint.checkpoint_digest
    if digest != release.checkpoint_digest:
        raise InputError(
            f"{store.checkpoint(release.arm, release.trained_through)}: checkpoint {digest[:12]} is not the released "
            f"{release.checkpoint_digest[:12]}; restore it, or run the day again"
        )
    table, days = _parity_examples(store, config, blessing.event_date)
    reference, hot = Reference.of(ranker, table, vectors.known), _hot_rows(store, ranker, config)
    files, parity, plain = _make_files_within_limits(store, ranker, vectors, config, hot, reference)
    ids, id_specs = pack_ids({**ranker.indexes, **vectors.indexes})
    contents = {RANKER_FILE: files.onnx, TABLES_FILE: files.tables} | ({IDS_FILE: ids} if id_specs else {})
    single_file_difference = None
    if config.single_file:
        packed = _packed_ranker(ranker, files.specs)
        single = export_single_file(packed, files.tables, files.specs, ranker.features, config)
        indexes = {**ranker.indexes, **vectors.indexes}
        single_file_difference = compare_single_file(single, table, ranker.features, files.predictions, config, indexes)
        contents[PREDICTOR_FILE] = single
    wanted = VersionManifest(
        origin=origin,
        checkpoint_digest=digest,
        features=ranker.features,
        objectives=OBJECTIVE_NAMES,
        served=config.served,
        tables=tuple(files.specs),
        ids=tuple(id_specs),
        vectors=vectors.days,
        identifiers=_identifier_types(store, days),
        lineage=ranker.lineage,
        parity=Parity(
            **parity.model_dump(),
            rows=table.num_rows,
            days=tuple(days),
            max_difference=files.max_difference,
            single_file_max_difference=single_file_difference,
            plain_int4=plain,
        ),
        recipe=ranker.checkpoint.recipe,
        blessing=blessing.model_dump(mode="json", exclude={"ledger_digest"}),
    )

    def write(folder: str) -> None:
        for name, content in contents.items():
            storage.write_bytes(storage.join_uri(folder, name), content)

    manifest = write_artifact(uri, wanted, write)
    _say(manifest)
    return manifest


@dataclass(frozen=True)
class _Files:
    """The ranker, the file of the tables, what lies where in it, and what they predict of the reference's rows."""

    onnx: bytes
    tables: bytes
    specs: list[PackedTable]
    predictions: np.ndarray
    max_difference: float

    def compare(self, reference: Reference) -> TableParity:
        return reference.compare(self.predictions, bytes_of(self.specs))


def _make_files_within_limits(
    store: Store,
    ranker: TrainedRanker,
    vectors: VectorTables,
    config: ExportConfig,
    hot: dict[str, np.ndarray],
    reference: Reference,
) -> tuple[_Files, TableParity, TableParity | None]:
    """Files that change no served objective too much, and how they compare; with the finest tables, if need be.

    With hot rows, also how files without any would compare.
    """
    for max_error in (config.max_table_error, 0.0):
        files = _make_files(store, ranker, vectors, config, max_error, hot, reference.table)
        parity = files.compare(reference)
        beyond = "; ".join(beyond_limits(parity.objectives, config))
        if not beyond or all(spec.layout == finest_layout(spec.dim) for spec in files.specs):
            break
        log_line("export", f"{beyond}: once more, with the finest tables")
    if beyond:
        raise Withheld(beyond)
    if not hot:
        return files, parity, None
    plain = _make_files(store, ranker, vectors, config, max_error, {}, reference.table)
    return files, parity, plain.compare(reference)


def _make_files(
    store: Store,
    ranker: TrainedRanker,
    vectors: VectorTables,
    config: ExportConfig,
    max_error: float,
    hot: dict[str, np.ndarray],
    rows: pa.Table,
) -> _Files:
    """Pack the tables, and make a graph that predicts of some rows what torch does.

    Raises:
        Withheld: If even a new export of the graph does not.
    """
    weights = {name: table.numpy() for name, table in ranker.model.served_tables().items()} | vectors.rows
    tables, specs = pack_tables(weights, max_error, hot | vectors.all_rows)
    indexes = {**ranker.indexes, **vectors.indexes}
    packed, graphs = _packed_ranker(ranker, specs), GraphCache(store)
    arguments = packed_inputs(ranker.features, specs)
    architecture = {
        "features": ranker.features.digest(),
        "model": ranker.checkpoint.model.model_dump(mode="json"),
        "inputs": [[str(argument.dtype), list(argument.shape)] for argument in arguments],
        "opset": config.opset,
    }

    def export(module: nn.Module) -> bytes:
        return export_onnx(module, arguments, ONNX_INPUTS, config)

    for make in (
        lambda: graphs.filled(packed, architecture),
        lambda: graphs.made(packed, architecture, export),
        lambda: export(packed),
    ):
        onnx = make()
        if onnx is None:
            continue
        predictor = Predictor.from_files(onnx, tables, specs, ranker.features, indexes)
        by_torch, predictions = predict_both(packed, predictor, rows)
        difference = np.abs(predictions - by_torch)
        if difference.max(initial=0) <= config.max_parity_difference:
            break
    check_exported(difference, config)
    assert onnx is not None
    if config.single_file:
        check_size(specs, len(onnx))
    return _Files(onnx, tables, specs, predictions, float(difference.max(initial=0)))


def _packed_ranker(ranker: TrainedRanker, specs: list[PackedTable]) -> PackedRanker:
    served = ServedRanker(ranker.model.net, ranker.lineage.negative_keep_rate)
    return PackedRanker(served, ranker.features, specs)


def _hot_rows(store: Store, ranker: TrainedRanker, config: ExportConfig) -> dict[str, np.ndarray]:
    """The rows that keep 8 bits, by table; none by default."""
    if not config.int8_share:
        return {}
    frequencies = count_look_ups(store, ranker.lineage, ranker.features, ranker.indexes)
    return {table: most_frequent(counts, config.int8_share) for table, counts in frequencies.items()}


def _identifier_types(store: Store, days: list[date]) -> dict[str, dict[str, str]]:
    """Whether each identifier of each log is an integer or a string."""
    types: dict[str, dict[str, str]] = {name: {} for name in LOG_NAMES}
    for name in LOG_NAMES:
        for day in days:
            manifest = read_manifest(store.clean_logs(name, day), CleanLogManifest)
            types[name] |= {column: kind for column, kind in manifest.identifiers.items() if kind != "null"}
    return types


def _parity_examples(store: Store, config: ExportConfig, event_date: date) -> tuple[pa.Table, list[date]]:
    """Evaluation rows of the newest scored days: a single day's few conversions would leave AUC to chance."""
    with_examples = set(store.example_days(EVALUATION))
    known = [day for day in store.ledger_days() if day <= event_date and day in with_examples]
    days = sorted({*known, event_date})[-config.parity_days :]
    table = pa.concat_tables([read_examples(store, EVALUATION, day)[0] for day in days])
    return table.slice(max(table.num_rows - config.parity_rows, 0)), days


def _say(manifest: VersionManifest) -> None:
    parity = manifest.parity
    named: dict[str, TableParity] = {"INT4 tables": parity}
    if parity.plain_int4 is not None:
        named = {"INT4 tables with frequent rows in INT8": parity, "plain INT4 tables": parity.plain_int4}
    log_line(
        "export",
        f"{manifest.version_digest[:12]}: {parity.rows} rows, ONNX against torch {parity.max_difference:.1e}, "
        + "; ".join(_comparison(name, tables, manifest.served) for name, tables in named.items()),
    )


def _comparison(name: str, parity: TableParity, served: tuple[str, ...]) -> str:
    changes = (parity.objectives[objective].auc_change_percent for objective in served)
    shown = " and ".join("none" if change is None else f"{change:+.3f}%" for change in changes)
    return f"AUC by {name} {shown}, their bytes {parity.table_bytes.ratio:.3f} of float16"


def main(store_uri: str, config_uri: str, pipeline: str, event_date: str) -> list[str]:
    """`export_releases` under a run's configuration; returns the digests of the versions that are not withheld."""
    config = ResolvedConfig.open(config_uri).section(ExportConfig, "export")
    export = export_releases(store_uri, config, pipeline, date.fromisoformat(event_date))
    return [exported.version for exported in export.versions if exported.version]
