"""Exports the checkpoints that a blessing names."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import safetensors.torch

from components.common import storage
from components.common.errors import InputError
from components.common.examples import EVALUATION, read_examples
from components.common.layout import VERSION_KIND, Store
from components.common.manifests import Manifest, find_manifest, write_artifact
from components.common.objectives import OBJECTIVE_NAMES
from components.common.progress import log_line
from components.common.release import Blessing, Release, read_blessing
from components.common.servable import RANKER_FILE, TABLES_FILE, version_digest
from components.evaluate.score import predict
from components.export.config import ExportConfig
from components.export.onnx_export import export_onnx
from components.export.ranker import ServedRanker
from components.serve.predictor import Predictor
from components.train.checkpoint import TrainingState, load_checkpoint
from components.train.dataset import tensors_of


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
    found = find_manifest(uri, VERSION_KIND)
    if found is not None:
        return found
    state, digest = load_checkpoint(store, release.arm, release.trained_through)
    if digest != release.checkpoint_digest:
        raise InputError(
            f"{store.checkpoint(release.arm, release.trained_through)}: checkpoint {digest[:12]} is not the released "
            f"{release.checkpoint_digest[:12]}; restore it, or run the day again"
        )

    def write(staged: str) -> dict[str, Any]:
        ranker = ServedRanker(state.model.net, state.lineage.negative_keep_rate)
        onnx = export_onnx(ranker, state.model.embeddings, len(state.features.dense_names), config)
        storage.write_bytes(storage.join_uri(staged, RANKER_FILE), onnx)
        tables = safetensors.torch.save({name: t.clone() for name, t in state.model.embeddings.tables().items()})
        storage.write_bytes(storage.join_uri(staged, TABLES_FILE), tables)
        predictor = Predictor.from_files(onnx, tables, state.features)
        parity = _parity(store, state, predictor, config, blessing.event_date)
        return {"details": _details(state, blessing, parity)}

    manifest = write_artifact(uri, Manifest(kind=VERSION_KIND, inputs={"checkpoint": digest}), write)
    parity = manifest.details["parity"]
    log_line(
        "export", f"{version_digest(manifest)[:12]}: parity {parity['max_difference']:.1e} on {parity['rows']} rows"
    )
    return manifest


def _details(state: TrainingState, blessing: Blessing, parity: dict[str, Any]) -> dict[str, Any]:
    return {
        "features": state.features.model_dump(mode="json"),
        "objectives": list(OBJECTIVE_NAMES),
        "lineage": state.lineage.model_dump(mode="json"),
        "train": state.config.recipe(),
        "blessing": blessing.model_dump(mode="json", exclude={"ledger_digest"}),
        "parity": parity,
    }


def _parity(
    store: Store, state: TrainingState, predictor: Predictor, config: ExportConfig, event_date: date
) -> dict[str, Any]:
    """Compare torch with the exported files, from examples to probabilities, on the newest scored day."""
    table, _ = read_examples(store, EVALUATION, event_date)
    table = table.slice(0, config.parity_rows)
    expected = predict(state, tensors_of(table, state.features, unsampled=True), config.parity_rows)
    difference = np.abs(predictor.predict(table) - expected)
    if not difference.max() <= config.max_parity_difference:
        worst = OBJECTIVE_NAMES[int(difference.max(axis=0).argmax())]
        raise InputError(
            f"the exported ranker differs from the checkpoint by {difference.max():.2e} on {worst}, at most "
            f"{config.max_parity_difference:.0e} is allowed (export.max_parity_difference)"
        )
    return {
        "rows": table.num_rows,
        "max_difference": float(difference.max()),
        "mean_difference": float(difference.mean()),
        "event_date": str(event_date),
    }


def main(store_uri: str, export: dict[str, Any], pipeline: str, event_date: str) -> list[str]:
    """`export_releases` from plain values; returns the versions' digests."""
    config = ExportConfig.parse(export, "export")
    manifests = export_releases(store_uri, config, pipeline, date.fromisoformat(event_date))
    return [version_digest(manifest) for manifest in manifests]
