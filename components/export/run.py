"""Exports the checkpoints that a blessing names."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa

from components.common import storage
from components.common.errors import InputError
from components.common.events import TABLES
from components.common.examples import EVALUATION, read_examples
from components.common.features import FeatureConfig
from components.common.int4 import finest_layout
from components.common.layout import CLEAN_LOGS_KIND, VERSION_KIND, Store
from components.common.manifests import Manifest, find_manifest, read_manifest, write_artifact
from components.common.objectives import OBJECTIVE_NAMES, SERVED_OBJECTIVES
from components.common.packed_tables import PackedTable, bytes_report, pack_tables
from components.common.progress import log_line
from components.common.release import Blessing, Release, read_blessing
from components.common.servable import ONNX_INPUTS, PREDICTOR_FILE, RANKER_FILE, TABLES_FILE, version_digest
from components.export.config import ExportConfig
from components.export.frequencies import count_look_ups, most_frequent
from components.export.onnx_export import export_onnx, packed_inputs, vector_inputs
from components.export.parity import VECTOR_INPUTS, Reference, beyond_limits
from components.export.ranker import PackedRanker, ServedRanker
from components.export.single_file import check_size, compare_single_file, export_single_file
from components.serve.predictor import Predictor
from components.train.checkpoint import TrainingState, load_checkpoint


def export_releases(store_uri: str, config: ExportConfig, pipeline: str, event_date: date) -> list[Manifest]:
    """Export what the blessing of a run allows to publish, and compare it with torch on that day's rows.

    The files go where no server looks; `publish` moves them.

    Returns:
        The manifest of each release's version, in order.

    Raises:
        InputError: If there is no such blessing, its checkpoint is not the one in the store, or an exported version
            does not predict what the checkpoint predicts.
    """
    store = Store(store_uri)
    blessing = read_blessing(store, pipeline, event_date)
    if blessing is None or not blessing.releases:
        raise InputError(
            f"{store.blessing(pipeline, event_date)}: allows nothing to be exported; the gate decides first"
        )
    return [_export(store, config, blessing, release) for release in blessing.releases]


def _export(store: Store, config: ExportConfig, blessing: Blessing, release: Release) -> Manifest:
    uri = store.staged_version(release.checkpoint_digest)
    settings = config.model_dump(include={"opset", "max_batch", "max_table_error", "single_file", "int8_share"})
    wanted = Manifest(kind=VERSION_KIND, inputs={"checkpoint": release.checkpoint_digest}, settings=settings)
    found = find_manifest(uri, VERSION_KIND)
    if found is not None and found.key == wanted.key:
        return found
    state, digest = load_checkpoint(store, release.arm, release.trained_through)
    if digest != release.checkpoint_digest:
        raise InputError(
            f"{store.checkpoint(release.arm, release.trained_through)}: checkpoint {digest[:12]} is not the released "
            f"{release.checkpoint_digest[:12]}; restore it, or run the day again"
        )

    table, days = _parity_examples(store, config, blessing.event_date)
    reference, hot = _reference(state, table, config), _hot_rows(store, state, config)

    def write(staged: str) -> dict[str, Any]:
        files, parity = _make_files_within_limits(state, config, hot, reference)
        parity |= {"rows": table.num_rows, "days": [str(day) for day in days]}
        parity["max_difference"] = reference.max_difference
        contents = {RANKER_FILE: files.onnx, TABLES_FILE: files.tables}
        if config.single_file:
            ranker, served = _packed_ranker(state, files.specs), files.predict(table)
            single = export_single_file(ranker, files.tables, files.specs, state.features, config)
            parity["single_file_max_difference"] = compare_single_file(single, table, state.features, served, config)
            contents[PREDICTOR_FILE] = single
        for name, content in contents.items():
            storage.write_bytes(storage.join_uri(staged, name), content)
        identifiers = _identifier_types(store, days)
        return {"details": _details(state, blessing, files.specs, parity) | {"identifiers": identifiers}}

    manifest = write_artifact(uri, wanted, write)
    _say(manifest)
    return manifest


@dataclass(frozen=True)
class _Files:
    """The ranker, the file of the tables, and what lies where in it."""

    onnx: bytes
    tables: bytes
    specs: list[PackedTable]
    features: FeatureConfig

    def predict(self, table: pa.Table) -> np.ndarray:
        return Predictor.from_files(self.onnx, self.tables, self.specs, self.features).predict(table)


def _make_files_within_limits(
    state: TrainingState, config: ExportConfig, hot: dict[str, np.ndarray], reference: Reference
) -> tuple[_Files, dict[str, Any]]:
    """Files that change no served objective too much, and how they compare; with the finest tables, if need be."""
    for max_error in (config.max_table_error, 0.0):
        files = _make_files(state, config, max_error, hot)
        parity = _compare(files, reference)
        beyond = "; ".join(beyond_limits(parity["objectives"], config))
        if not beyond or all(spec.layout == finest_layout(spec.dim) for spec in files.specs):
            break
        log_line("export", f"{beyond}: once more, with the finest tables")
    if beyond:
        raise InputError(f"{beyond}; nothing is exported")
    if hot:
        parity["plain_int4"] = _compare(_make_files(state, config, max_error, {}), reference)
    return files, parity


def _compare(files: _Files, reference: Reference) -> dict[str, Any]:
    return reference.compare(files.predict(reference.table)) | {"table_bytes": bytes_report(files.specs)}


def _make_files(state: TrainingState, config: ExportConfig, max_error: float, hot: dict[str, np.ndarray]) -> _Files:
    weights = {name: table.numpy() for name, table in state.model.embeddings.tables().items()}
    tables, specs = pack_tables(weights, max_error, hot)
    onnx = export_onnx(_packed_ranker(state, specs), packed_inputs(state.features, specs), ONNX_INPUTS, config)
    if config.single_file:
        check_size(specs, len(onnx))
    return _Files(onnx, tables, specs, state.features)


def _packed_ranker(state: TrainingState, specs: list[PackedTable]) -> PackedRanker:
    return PackedRanker(ServedRanker(state.model.net, state.lineage.negative_keep_rate), state.features, specs)


def _hot_rows(store: Store, state: TrainingState, config: ExportConfig) -> dict[str, np.ndarray]:
    """The rows that keep 8 bits, by table; none by default."""
    if not config.int8_share:
        return {}
    frequencies = count_look_ups(store, state.lineage, state.features)
    return {table: most_frequent(counts, config.int8_share) for table, counts in frequencies.items()}


def _details(
    state: TrainingState, blessing: Blessing, specs: list[PackedTable], parity: dict[str, Any]
) -> dict[str, Any]:
    return {
        "features": state.features.model_dump(mode="json"),
        "objectives": list(OBJECTIVE_NAMES),
        "lineage": state.lineage.model_dump(mode="json"),
        "train": state.config.recipe(),
        "blessing": blessing.model_dump(mode="json", exclude={"ledger_digest"}),
        "tables": [spec.model_dump(mode="json") for spec in specs],
        "parity": parity,
    }


def _identifier_types(store: Store, days: list[date]) -> dict[str, dict[str, str]]:
    """Whether each identifier of each log is an integer or a string, which decides its hash."""
    found: dict[str, dict[str, str]] = {table: {} for table in TABLES}
    for table in TABLES:
        for day in days:
            kinds = read_manifest(store.clean_logs(table, day), CLEAN_LOGS_KIND).details["identifiers"]
            found[table] |= {name: kind for name, kind in kinds.items() if kind != "null"}
    return found


def _parity_examples(store: Store, config: ExportConfig, event_date: date) -> tuple[pa.Table, list[date]]:
    """Evaluation rows of the newest scored days: a single day's few conversions would leave AUC to chance."""
    known = [day for day in store.ledger_days() if day <= event_date and day in store.example_days(EVALUATION)]
    days = sorted({*known, event_date})[-config.parity_days :]
    table = pa.concat_tables([read_examples(store, EVALUATION, day)[0] for day in days])
    return table.slice(max(table.num_rows - config.parity_rows, 0)), days


def _reference(state: TrainingState, table: pa.Table, config: ExportConfig) -> Reference:
    """What torch predicts, after a check of the export on float32 vectors against it."""
    ranker = ServedRanker(state.model.net, state.lineage.negative_keep_rate)
    arguments = vector_inputs(state.model.embeddings, len(state.features.dense_names))
    of_vectors = export_onnx(ranker, arguments, VECTOR_INPUTS, config)
    return Reference.of(state, table, of_vectors, config)


def _say(manifest: Manifest) -> None:
    parity = manifest.details["parity"]
    named = {"INT4 tables": parity}
    if "plain_int4" in parity:
        named = {"INT4 tables with frequent rows in INT8": parity, "plain INT4 tables": parity["plain_int4"]}
    log_line(
        "export",
        f"{version_digest(manifest)[:12]}: {parity['rows']} rows, ONNX against torch {parity['max_difference']:.1e}, "
        + "; ".join(_comparison(name, found) for name, found in named.items()),
    )


def _comparison(name: str, found: dict[str, Any]) -> str:
    changes = (found["objectives"][objective]["auc_change_percent"] for objective in SERVED_OBJECTIVES)
    shown = " and ".join("none" if change is None else f"{change:+.3f}%" for change in changes)
    return f"AUC by {name} {shown}, their bytes {found['table_bytes']['ratio']:.3f} of float16"


def main(store_uri: str, export: dict[str, Any], pipeline: str, event_date: str) -> list[str]:
    """`export_releases` from plain values; returns the versions' digests."""
    config = ExportConfig.parse(export, "export")
    manifests = export_releases(store_uri, config, pipeline, date.fromisoformat(event_date))
    return [version_digest(manifest) for manifest in manifests]
