"""From a ranker to what a server would answer, without a store."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from components.common.features import FeatureConfig
from components.common.int4 import dequantize
from components.common.packed_tables import PackedTable, finest_of, pack_tables
from components.common.servable import ONNX_INPUTS
from components.export.config import ExportConfig
from components.export.onnx_export import export_onnx, packed_inputs
from components.export.ranker import PackedRanker, ServedRanker
from components.serve.predictor import Predictor
from components.train.model.ranker import Ranker


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


def make_files(ranker: Ranker, features: FeatureConfig, max_error: float = 7e-3) -> Files:
    """Export a ranker as a version."""
    weights = {name: rows.numpy() for name, rows in ranker.embeddings.tables().items()}
    content, specs = pack_tables(weights, max_error)
    layout = finest_of(specs)
    packed_ranker = PackedRanker(ServedRanker(ranker.net, 0.5), features, layout)
    onnx = export_onnx(packed_ranker, packed_inputs(features, layout), ONNX_INPUTS, ExportConfig())
    return Files(features, content, specs, packed_ranker, onnx)


def predict_as_served(ranker: Ranker, features: FeatureConfig, table: pa.Table, max_error: float = 7e-3) -> np.ndarray:
    """Probabilities of a version at negative_keep_rate 0.5; the ranker's tables become what INT4 makes of them."""
    files = make_files(ranker, features, max_error)
    for spec in files.specs:
        packed = np.frombuffer(files.tables, np.uint8)[spec.first_byte :][: spec.num_bytes].reshape(spec.num_rows, -1)
        ranker.embeddings.tables()[spec.name].copy_(torch.from_numpy(dequantize(packed, spec.layout)))
    return files.predict(table)
