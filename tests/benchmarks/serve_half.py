"""The same two tiers with float16 vectors instead of packed rows, to be compared with."""

from __future__ import annotations

import sys

import numpy as np
import onnxruntime

from components.common import storage
from components.features.objectives import DEFAULT_SERVED
from components.serve import ranker_server, ranker_tier
from components.serve.config import EmbeddingTierConfig, RankerTierConfig
from components.serve.embedding_server import start
from components.serve.embedding_tier import EmbeddingTier
from components.serve.ranker_version import RankerVersion
from components.version.manifest import ONNX_INPUTS, ONNX_OUTPUT
from components.version.packed_tables import PackedTables
from components.version.session import provider_of
from components.version.version import Version
from tests.benchmarks.serve_version import DIM, HALF_FILE, HALF_RANKER_FILE


class HalfTables(PackedTables):
    """Float16 vectors by the same look-up; on the wire as bytes."""

    def __init__(self, version: Version) -> None:
        specs = list(version.manifest.tables)
        content = storage.map_bytes(storage.join_uri(version.uri, "tables.int4"))
        super().__init__(content, specs, version.manifest.features)
        halves = storage.map_bytes(storage.join_uri(version.uri, HALF_FILE))
        self._rows = {self.layout: np.asarray(halves).reshape(-1, 2 * DIM)}


class HalfTier(EmbeddingTier):
    """Holds `HalfTables`."""

    def _load(self, digest: str) -> None:
        tables = HalfTables(Version.published(self._store, digest))
        tables._rows[tables.layout][::64].max()
        self._tables = {**self._tables, digest: tables}


class HalfRankerTier(ranker_tier.RankerTier):
    """Runs the ranker that takes float16 vectors."""

    def _load(self, digest: str) -> None:
        version = Version.published(self._store, digest)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.config.session_threads
        onnx = storage.read_bytes(storage.join_uri(version.uri, HALF_RANKER_FILE))
        session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])

        def run(inputs: tuple[np.ndarray, ...]) -> np.ndarray:
            vectors = (value.view(np.float16) if value.dtype == np.uint8 else value for value in inputs)
            return np.asarray(session.run([ONNX_OUTPUT], dict(zip(ONNX_INPUTS, vectors, strict=True)))[0])

        objectives = version.manifest.objectives
        columns = {name: objectives.index(name) for name in DEFAULT_SERVED}
        self._versions = {digest: RankerVersion(digest, version.contract(), run, columns, provider_of(session))}


def main(tier: str, store: str, grpc_port: str, http_port: str, embedding_address: str = "") -> None:
    """Serve until killed."""
    ports = {"store_uri": store, "grpc_port": int(grpc_port), "http_port": int(http_port)}
    if tier == "embedding":
        half = HalfTier(EmbeddingTierConfig.parse(ports, "settings"))
        half.load()
        server, _ = start(half)
        server.wait_for_termination()
    ranker_server.RankerTier = HalfRankerTier  # type: ignore[misc]
    ranker_server.serve(RankerTierConfig.parse(ports | {"embedding_address": embedding_address}, "settings"))


if __name__ == "__main__":
    main(*sys.argv[1:])
