"""From a ranker, or a deployment, to what a server would answer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import torch

from components.common import storage
from components.common.manifests import read_manifest
from components.common.releases import Blessing, Export, ExportedVersion, Release
from components.export.config import ExportConfig
from components.export.onnx_export import export_onnx, packed_inputs
from components.export.run import export_releases
from components.export.served_ranker import PackedRanker, ServedRanker
from components.features.feature_list import FeatureConfig
from components.features.vectors import Delivery, KnownVectors
from components.ranker.checkpoint import find_checkpoint
from components.ranker.ranker import Ranker
from components.version.int4 import dequantize
from components.version.manifest import ONNX_INPUTS, TABLES_FILE, VersionManifest
from components.version.packed_tables import PackedTable
from components.version.predictor import Predictor
from components.version.table_packing import pack_tables
from components.version.version import Version
from tests.conftest import Deployment


@dataclass(frozen=True)
class Files:
    """A version's tables and ranker at negative_keep_rate 0.5, and what the ranker was exported from."""

    features: FeatureConfig
    tables: bytes
    specs: list[PackedTable]
    packed_ranker: PackedRanker
    onnx: bytes

    def predict(self, table: pa.Table) -> np.ndarray:
        return Predictor.from_files(self.onnx, self.tables, self.specs, self.features).predict(table)


def make_files(
    ranker: Ranker, features: FeatureConfig, max_error: float = 7e-3, hot: dict[str, np.ndarray] | None = None
) -> Files:
    """Export a ranker as a version."""
    weights = {name: rows.numpy() for name, rows in ranker.served_tables().items()}
    content, specs = pack_tables(weights, max_error, hot)
    packed_ranker = PackedRanker(ServedRanker(ranker.net, 0.5), features, specs)
    onnx = export_onnx(packed_ranker, packed_inputs(features, specs), ONNX_INPUTS, ExportConfig())
    return Files(features, content, specs, packed_ranker, onnx)


def vectors_of(content: bytes | np.ndarray, spec: PackedTable) -> np.ndarray:
    """A table as the file has it, float32, shape (rows, dim)."""
    packed = np.frombuffer(content, np.uint8)[spec.first_byte :][: spec.num_bytes].reshape(spec.num_rows, -1)
    vectors = dequantize(packed, spec.layout)
    if spec.num_hot:
        start = spec.first_byte + spec.num_bytes
        fine = np.frombuffer(content, np.uint8)[start:][: spec.num_hot * spec.layout.row_bytes]
        ids = np.frombuffer(np.frombuffer(content, np.uint8)[: spec.end_byte][-8 * spec.num_hot :], "<i8")
        vectors[ids] += dequantize(fine.reshape(spec.num_hot, -1), spec.layout)
    return vectors


def take_tables(ranker: Ranker, version: Version) -> KnownVectors:
    """Make a ranker's tables what a version's files have; returns the pretrained vectors that these have."""
    content, manifest, indexes = storage.read_bytes(f"{version.uri}/{TABLES_FILE}"), version.manifest, version.indexes()
    tables, delivered = ranker.embeddings.tables(), {}
    dims = dict(zip(manifest.features.vector_names, manifest.features.vector_dims, strict=True))
    for spec in manifest.tables:
        rows = vectors_of(content, spec)
        if spec.name in tables:
            tables[spec.name].copy_(torch.from_numpy(rows))
        else:
            ids = np.array(indexes[spec.name].keys)
            numbers = rows.reshape(len(ids) + 1, -1)[: len(ids), : dims[spec.name]]
            delivered[spec.name] = [Delivery(date.min, "", ids, numbers)]
    return KnownVectors(manifest.features, delivered)


def predict_as_served(ranker: Ranker, features: FeatureConfig, table: pa.Table, max_error: float = 7e-3) -> np.ndarray:
    """Probabilities of a version at negative_keep_rate 0.5; the ranker's tables become what INT4 makes of them."""
    files = make_files(ranker, features, max_error)
    for spec in files.specs:
        ranker.embeddings.tables()[spec.name].copy_(torch.from_numpy(vectors_of(files.tables, spec)))
    return files.predict(table)


def blessing_of(
    deployment: Deployment, arm: str = "baseline", action: str = "first", digest: str | None = None
) -> Blessing:
    """A verdict that releases an arm's checkpoint after the batch."""
    through = deployment.batch_days[-1]
    manifest = find_checkpoint(deployment.store, arm, through)
    release = Release(
        action=action,
        arm=arm,
        checkpoint_digest=digest or manifest.checkpoint_digest,
        trained_through=through,
        reasons=("test",),
    )
    return Blessing(
        pipeline="batch",
        event_date=deployment.scored_day,
        production="baseline",
        releases=(release,),
        ledger_digest="",
    )


def export_of(blessing: Blessing, digests: list[str]) -> Export:
    """A record of these versions, one for each release; an empty digest is a withheld one."""
    versions = [
        ExportedVersion(checkpoint_digest="", version=digest, withheld="" if digest else "INT4 changes too much")
        for digest in digests
    ]
    return Export(pipeline=blessing.pipeline, event_date=blessing.event_date, versions=tuple(versions))


@dataclass(frozen=True)
class Unexported:
    """A deployment, and the blessing that lets its control be exported."""

    deployment: Deployment
    blessing: Blessing

    @property
    def uri(self) -> str:
        """Where its version goes."""
        return self.deployment.store.staged_version(self.blessing.releases[0].checkpoint_digest)

    def export(self, **config: object) -> VersionManifest:
        """Export it."""
        assert not self.withheld(**config)
        return read_manifest(self.uri, VersionManifest)

    def withheld(self, **config: object) -> str:
        """Try to export it; why it is withheld, or nothing."""
        settings = ExportConfig.parse(config, "export")
        export = export_releases(self.deployment.store.root, settings, "batch", self.deployment.scored_day)
        return export.versions[0].withheld
