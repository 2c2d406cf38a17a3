"""A version as one ONNX file: ids in, probabilities out, with the INT4 tables inside."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnxruntime
import pyarrow as pa
import torch
from torch import Tensor, nn

from components.common.errors import InputError
from components.export.comparison import Withheld
from components.export.config import ExportConfig
from components.export.onnx_export import export_onnx
from components.export.served_ranker import PackedRanker
from components.features.binary_code import BinaryCode
from components.features.encoding import encode
from components.features.feature_list import FeatureConfig
from components.features.learned_rows import NO_INDEXES, RowIndex
from components.version.int4 import Int4Layout, finest, widen
from components.version.manifest import ONNX_OUTPUT, PREDICTOR_INPUTS
from components.version.packed_tables import PackedTable
from components.version.row_codes import RowCode, row_code
from components.version.table_packing import bytes_of

# A protobuf message ends before 2 GiB; the rest is for what is in neither the tables' file nor the ranker's.
_MAX_BYTES = 2**31 - 2**24
_ROWS_AT_ONCE = 4096
# Both ways run the same float32 arithmetic, so they differ by much less than torch and ONNX may.
_SHARE_OF_LIMIT = 0.1


class SingleFileRanker(nn.Module):
    """From ids to probabilities: takes the packed rows of the tables within the graph."""

    def __init__(self, ranker: PackedRanker, content: bytes, specs: list[PackedTable], features: FeatureConfig) -> None:
        """Put the tables of a version's file in front of its ranker."""
        super().__init__()
        self.ranker = ranker
        bytes_, layout = np.frombuffer(content, dtype=np.uint8), finest(spec.layout for spec in specs)
        places = {spec.name: number for number, spec in enumerate(specs)}
        self.tables = nn.ModuleList(
            _PackedRows(bytes_, spec, layout, row_code(spec.name, features, spec.dim)) for spec in specs
        )
        self.num_ids = [table.num_ids for table in self.tables]
        self._categorical = [places[table] for table in features.served_columns]
        self._sequence = [places[table] for table in features.sequence_tables]

    def forward(self, categorical_ids: Tensor, dense: Tensor, sequence_ids: Tensor, lengths: Tensor) -> Tensor:
        """Probabilities, shape (n, objectives); NaN in rows with an id that no table has, on every provider.

        Args:
            categorical_ids: Below their tables' `num_ids`, int64, shape (n, C + P + F).
            dense: Raw dense features, then the weights of lists' positions, shape (n, D + P).
            sequence_ids: As the categorical ones, padded with 0, int64, shape (n, L, S).
            lengths: Used positions, int64, shape (n,).
        """
        categorical = self._look_up(self._categorical, categorical_ids)
        sequence = self._look_up(self._sequence, sequence_ids)
        probabilities = self.ranker(categorical, dense, sequence, lengths, torch.arange(lengths.shape[0]))
        # The graph cannot fail by itself, and CUDA does not say that a row is beyond the table.
        known = self._known(self._categorical, categorical_ids) & self._known(self._sequence, sequence_ids).all(dim=1)
        return torch.where(known[:, None], probabilities, torch.nan)

    def _known(self, places: list[int], ids: Tensor) -> Tensor:
        """Whether all of a row's ids have a row, bool, of ids of shape (..., columns)."""
        limits = torch.tensor([self.num_ids[place] for place in places])
        return ((ids >= 0) & (ids < limits)).all(dim=-1)

    def _look_up(self, places: list[int], ids: Tensor) -> Tensor:
        """Packed rows, shape (..., rows, row bytes), of ids of shape (..., columns)."""
        return torch.cat([self.tables[place](ids[..., column]) for column, place in enumerate(places)], dim=-2)


class _PackedRows(nn.Module):
    """One table's rows, and its fine ones, as they lie in the file; given in the layout that the ranker takes."""

    packed: Tensor
    bytes_: Tensor
    hot_ids: Tensor

    def __init__(self, content: np.ndarray, spec: PackedTable, target: Int4Layout, code: RowCode | None) -> None:
        super().__init__()
        packed = spec.rows(content)
        self.register_buffer("packed", torch.from_numpy(packed.copy()))
        self.register_buffer("hot_ids", torch.from_numpy(spec.hot_ids(content).copy()))
        self.num_rows, self.num_hot = spec.num_rows, spec.num_hot
        # Which byte of a row each byte of the wider row is.
        self.register_buffer("bytes_", torch.from_numpy(widen(np.arange(packed.shape[1]), spec.layout, target)))
        self.is_wide = spec.layout == target
        self.block_rows: nn.Module | None = None
        self.num_ids = spec.num_rows
        if isinstance(code, BinaryCode):
            self.block_rows, self.num_ids = _BlockRows(code), code.num_codes
        elif code is not None:
            self.block_rows, self.num_ids = _PieceRows(code), spec.num_rows // code.num_blocks

    def forward(self, ids: Tensor) -> Tensor:
        """(...) to (..., rows, row bytes)."""
        ids = torch.where((ids >= 0) & (ids < self.num_ids), ids, 0)
        rows = ids[..., None] if self.block_rows is None else self.block_rows(ids)
        if self.num_hot:
            rows = torch.cat([rows, self.num_rows + self._ranks(rows)], dim=-1)
        packed = nn.functional.embedding(rows, self.packed)
        return packed if self.is_wide else packed.index_select(-1, self.bytes_)

    def _ranks(self, rows: Tensor) -> Tensor:
        """Which of the hot rows each row is, or how many these are, if it is none; ONNX has no binary search."""
        below, last = torch.zeros_like(rows), self.num_hot - 1
        for power in reversed(range(self.num_hot.bit_length())):
            further = below + 2**power
            is_below = (further <= self.num_hot) & (self.hot_ids[(further - 1).clamp(max=last)] < rows)
            below = torch.where(is_below, further, below)
        return torch.where(self.hot_ids[below.clamp(max=last)] == rows, below, self.num_hot)


class _BlockRows(nn.Module):
    """Rows of a code's blocks, without shifts, which ONNX has for unsigned numbers only.

    A bit of the code adds the same to its block's row whatever the other bits are.
    """

    place_values: Tensor
    first_rows: Tensor
    steps: Tensor

    def __init__(self, code: BinaryCode) -> None:
        super().__init__()
        self.register_buffer("place_values", 2 ** torch.arange(code.code_bits))
        self.register_buffer("first_rows", torch.tensor(code.rows(0)))
        # (bits, blocks): what a bit adds to the row of each block.
        self.register_buffer("steps", torch.stack(code.rows(self.place_values), dim=-1) - self.first_rows)

    def forward(self, codes: Tensor) -> Tensor:
        """(...) to (..., blocks)."""
        # Not by torch.div: the exporter makes float32 of it, which is exact for codes of 24 bits only.
        bits = codes[..., None] % (2 * self.place_values) >= self.place_values
        return torch.matmul(bits.to(torch.int64), self.steps) + self.first_rows


class _PieceRows(nn.Module):
    """Rows of a pretrained vector's pieces."""

    def __init__(self, code: RowCode) -> None:
        super().__init__()
        self._code = code

    def forward(self, ids: Tensor) -> Tensor:
        """(...) to (..., pieces)."""
        return torch.stack(self._code.rows(ids), dim=-1)


def check_size(specs: list[PackedTable], ranker_bytes: int) -> None:
    """Check that tables and ranker fit one ONNX file.

    Raises:
        InputError: If they are too large.
    """
    table_bytes = bytes_of(specs).int4
    if table_bytes + ranker_bytes > _MAX_BYTES:
        raise InputError(
            f"export.single_file: tables of {table_bytes} bytes and a ranker of {ranker_bytes} do not fit one "
            f"ONNX file, at most {_MAX_BYTES} do (protobuf ends at 2 GiB); turn it off, or make the tables smaller"
        )


def export_single_file(
    ranker: PackedRanker, content: bytes, specs: list[PackedTable], features: FeatureConfig, config: ExportConfig
) -> bytes:
    """Export a ranker with its tables, with a free batch dimension.

    Args:
        ranker: Of packed rows.
        content: The file of the tables.
        specs: The tables in it.
        features: The version's.
        config: Opset and largest batch.
    """
    length = features.sequence.length
    arguments = (
        torch.zeros(3, len(features.served_columns), dtype=torch.int64),
        torch.zeros(3, features.num_dense),
        torch.zeros(3, length, len(features.sequence_tables), dtype=torch.int64),
        torch.tensor([0, 1, length]),
    )
    return export_onnx(SingleFileRanker(ranker, content, specs, features), arguments, PREDICTOR_INPUTS, config)


def compare_single_file(
    onnx: bytes,
    table: pa.Table,
    features: FeatureConfig,
    served: np.ndarray,
    config: ExportConfig,
    indexes: Mapping[str, RowIndex] = NO_INDEXES,
) -> float:
    """Check that the single file predicts what the two files do.

    Args:
        onnx: The single file.
        table: Examples, n rows.
        features: The version's.
        served: Probabilities by the version's two files, shape (n, objectives).
        config: The limit.
        indexes: Of its exact ids, by table.

    Returns:
        The largest difference of a probability.

    Raises:
        Withheld: If it is more than float32 arithmetic explains.
    """
    session, parts = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"]), []
    for start in range(0, table.num_rows, _ROWS_AT_ONCE):
        encoded = encode(table.slice(start, _ROWS_AT_ONCE), features).with_rows(features, indexes)
        encoded = encoded.with_vectors(features, indexes)
        values = (encoded.served_ids, encoded.dense, encoded.sequence, encoded.lengths)
        parts += session.run([ONNX_OUTPUT], dict(zip(PREDICTOR_INPUTS, values, strict=True)))
    difference, limit = np.abs(np.concatenate(parts) - served).max(), config.max_parity_difference * _SHARE_OF_LIMIT
    if not difference <= limit:
        raise Withheld(
            f"export.single_file: the file differs from tables and ranker by {difference:.2e}, at most {limit:.0e} is "
            "allowed (a tenth of export.max_parity_difference)"
        )
    return float(difference)
