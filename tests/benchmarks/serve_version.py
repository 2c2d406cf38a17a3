"""A version of 60 tables at dim 32 for the serving benchmark: random rows and an untrained net, of real sizes."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from components.common import filesystems, storage
from components.common.deployments import Deployment, write_deployment
from components.common.layout import Store
from components.common.lineage import Lineage
from components.common.manifests import Step, write_artifact
from components.export.config import ExportConfig
from components.export.onnx_export import export_onnx, packed_inputs
from components.export.served_ranker import PackedRanker, ServedRanker
from components.features.events import LOG_NAMES
from components.features.feature_list import FeatureConfig
from components.features.objectives import OBJECTIVE_NAMES
from components.ranker.config import ModelConfig
from components.ranker.ranker import RankerNet
from components.version.int4 import Int4Layout
from components.version.manifest import ONNX_INPUTS, RANKER_FILE, TABLES_FILE, VersionManifest
from components.version.packed_tables import PackedTable
from components.version.parity import Parity
from components.version.request import RequestContract
from components.version.table_packing import bytes_of

NUM_TABLES, DIM, NUM_ROWS = 60, 32, 200_000
HALF_FILE, HALF_RANKER_FILE = "tables.float16", "ranker_float16.onnx"
NAMES = ["user_id", "item_id", *(f"entity_{number:02d}" for number in range(2, NUM_TABLES))]
FEATURES = FeatureConfig.parse(
    {
        "categorical": [{"name": name, "num_rows": NUM_ROWS} for name in NAMES],
        "sequence": {"length": 20, "entities": ["item_id"]},
    },
    "features",
)
MODEL = ModelConfig.parse(
    {
        "embedding_dim": DIM,
        "sequence_dim": 64,
        "sequence_heads": 4,
        "dhen": {"num_layers": 2, "hidden_size": 256},
        "hidden_sizes": [512, 256],
    },
    "model",
)


class HalfRanker(nn.Module):
    """As `PackedRanker`, from float16 vectors."""

    def __init__(self, ranker: ServedRanker) -> None:
        super().__init__()
        self.ranker = ranker

    def forward(self, categorical: Tensor, dense: Tensor, sequence: Tensor, lengths: Tensor, users: Tensor) -> Tensor:
        positions = sequence.to(torch.float32).flatten(2)
        used = torch.arange(positions.shape[1]) < lengths[:, None]
        return self.ranker(categorical.to(torch.float32), dense, positions * used[:, :, None], lengths, users)


def write_version(store: Store, deployment: str) -> str:
    """Write the version and its float16 twin into a registry, and a deployment that serves it; returns its digest."""
    layout, specs, position = Int4Layout(DIM, DIM), [], 0
    for name, rows in FEATURES.tables.items():
        position += -position % layout.row_bytes
        specs.append(
            PackedTable(name=name, num_rows=rows, dim=DIM, block_size=DIM, first_byte=position, relative_error=0)
        )
        position += rows * layout.row_bytes
    content = np.random.default_rng(0).integers(
        0, 256, (position // layout.row_bytes, layout.row_bytes), dtype=np.uint8
    )
    content[:, -4:] = np.array([0.01, -0.075], dtype="<f2").view(np.uint8)
    torch.manual_seed(0)
    ranker = ServedRanker(RankerNet(FEATURES, MODEL), 1.0)
    inputs = packed_inputs(FEATURES, specs)
    halves = tuple(
        torch.zeros(*value.shape[:-1], DIM, dtype=torch.float16) if value.dtype == torch.uint8 else value
        for value in inputs
    )

    def write(staged: str) -> None:
        files = {
            RANKER_FILE: export_onnx(PackedRanker(ranker, FEATURES, specs), inputs, ONNX_INPUTS, ExportConfig()),
            HALF_RANKER_FILE: export_onnx(HalfRanker(ranker), halves, ONNX_INPUTS, ExportConfig()),
            TABLES_FILE: content.tobytes(),
        }
        for name, written in files.items():
            storage.write_bytes(storage.join_uri(staged, name), written)
        _write_halves(storage.join_uri(staged, HALF_FILE), content)

    day = date(2026, 1, 1)
    wanted = VersionManifest(
        origin=Step("benchmark").origin(),
        checkpoint_digest="",
        features=FEATURES,
        objectives=OBJECTIVE_NAMES,
        tables=tuple(specs),
        identifiers={name: dict.fromkeys((*NAMES, "action_id"), "int64") for name in LOG_NAMES},
        lineage=Lineage(arm="", first_day=day, trained_through=day, parent="", step=0, negative_keep_rate=1.0),
        parity=Parity(
            int4_max_difference=0, objectives={}, table_bytes=bytes_of(specs), rows=0, days=(), max_difference=0
        ),
        recipe={},
        blessing={},
    )
    staged = store.version("staged")
    digest = write_artifact(staged, wanted, write).version_digest
    fs, path = filesystems.filesystem(staged)
    fs.mv(path, store.version(digest))
    write_deployment(store, deployment, Deployment(current=digest))
    return digest


def _write_halves(path: str, content: np.ndarray) -> None:
    """The same vectors as float16, row behind row."""
    with open(path, "wb") as file:
        for part in np.array_split(content, 64):
            numbers = np.stack([part[:, :-4] & 15, part[:, :-4] >> 4], axis=-1).reshape(len(part), DIM)
            file.write((numbers * np.float16(0.01) - np.float16(0.075)).astype("<f2").tobytes())


def num_parameters(onnx_bytes: bytes) -> int:
    """Of an exported net."""
    return sum(int(np.prod(value.dims)) for value in onnx.load_from_string(onnx_bytes).graph.initializer)


class Requests:
    """Random requests of one size."""

    def __init__(self, num_candidates: int, num_actions: int = 30, seed: int = 0) -> None:
        identifiers = dict.fromkeys((*NAMES, "action_id"), "int64")
        self._contract = RequestContract(FEATURES, dict.fromkeys(LOG_NAMES, identifiers))
        self._sizes = {"user": 1, "candidates": num_candidates, "actions": num_actions}
        self._draw = np.random.default_rng(seed)

    def tensors(self) -> dict[str, np.ndarray]:
        """The next request."""
        now, tensors = 1_800_000_000_000_000, {}
        for field in self._contract.fields.values():
            size = self._sizes[field.part]
            if field.kind == "timestamp":
                ago = 0 if field.part == "user" else self._draw.integers(1, 20 * 86_400_000_000, size)
                tensors[field.name] = np.full(size, now) - ago
            elif field.kind == "action_type":
                tensors[field.name] = self._draw.choice(np.array([b"click", b"checkout"], dtype=object), size)
            elif field.kind == "number":
                tensors[field.name] = self._draw.random(size).astype(np.float32)
            else:
                tensors[field.name] = self._draw.integers(0, 10**12, size)
        return tensors

    def parts(self, tensors: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
        """A request's tensors as callers have them: columns by part, texts as such."""
        found: dict[str, dict[str, np.ndarray]] = {part: {} for part in self._sizes}
        for field in self._contract.fields.values():
            values = tensors[field.name]
            if field.kind == "action_type":
                values = np.array([text.decode() for text in values], dtype=object)
            found[field.part][field.column] = values
        return found


def rows_of(columns: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Columns as a list of rows."""
    lists = [values.tolist() for values in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*lists, strict=True)]
