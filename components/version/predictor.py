"""Loads a published version and predicts in this process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnxruntime
import pyarrow as pa

from components.common.errors import InputError
from components.common.layout import Store
from components.common.releases import PRODUCTION_CHANNEL, Pointer, known_pointer
from components.features.encoding import encode
from components.features.feature_list import FeatureConfig, sequence_column
from components.features.learned_rows import NO_INDEXES, RowIndex
from components.version.manifest import ONNX_INPUTS, ONNX_OUTPUT
from components.version.packed_tables import PackedTable, PackedTables
from components.version.session import start_session
from components.version.version import Version

# Bounds the memory of looked-up rows.
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Predictor:
    """Embedding tables, ranker and feature list of one version."""

    features: FeatureConfig
    tables: PackedTables
    onnx: bytes

    @classmethod
    def from_files(
        cls,
        onnx: bytes,
        tables: bytes | np.ndarray,
        specs: list[PackedTable],
        features: FeatureConfig,
        indexes: Mapping[str, RowIndex] = NO_INDEXES,
    ) -> Predictor:
        """Load from a version's files; the tables may be mapped into memory.

        Raises:
            InputError: If they do not fit each other.
        """
        content = np.frombuffer(tables, dtype=np.uint8) if isinstance(tables, bytes) else tables
        return cls(features, PackedTables(content, specs, features, indexes), onnx)

    @cached_property
    def session(self) -> onnxruntime.InferenceSession:
        """The running ranker; started by the first prediction that has its columns."""
        return start_session(self.onnx, "the version's ranker")

    @classmethod
    def from_version(cls, version: Version) -> Predictor:
        """Load a version's files after checking their digests.

        Raises:
            InputError: If one is absent or damaged.
        """
        return cls(version.manifest.features, version.tables(), version.onnx())

    def predict(self, table: pa.Table) -> np.ndarray:
        """Probabilities of n examples, float32, shape (n, objectives).

        Raises:
            InputError: If a feature column is absent.
        """
        sequences = (sequence_column(name) for name in self.features.sequence_names)
        lists = self.features.list_columns
        needed = [*self.features.categorical_names, *self.features.dense_names, *lists, *sequences]
        missing = [name for name in needed if name not in table.column_names]
        if missing:
            raise InputError(
                f"examples lack {len(missing)} columns of the version's feature list, such as {missing[:3]}; "
                "pass rows as the join writes them: examples/evaluation/event_date=D/part-00000.parquet in the store"
            )
        parts = [self._predict(table.slice(start, _ROWS_AT_ONCE)) for start in range(0, len(table), _ROWS_AT_ONCE)]
        return np.concatenate(parts) if parts else self._predict(table)

    def inputs(self, table: pa.Table) -> tuple[np.ndarray, ...]:
        """What the ranker takes of n examples that have all columns, in the order of `ONNX_INPUTS`."""
        encoded = encode(table, self.features)
        return (
            self.tables.look_up(self.features.served_columns, encoded.served_ids),
            encoded.dense,
            self.tables.look_up(self.features.sequence_tables, encoded.sequence),
            encoded.lengths,
            np.arange(table.num_rows),
        )

    def run(self, inputs: tuple[np.ndarray, ...]) -> np.ndarray:
        """The ranker's probabilities of what `inputs` gives, float32, shape (n, objectives)."""
        outputs = self.session.run([ONNX_OUTPUT], dict(zip(ONNX_INPUTS, inputs, strict=True)))
        return np.asarray(outputs[0])

    def _predict(self, table: pa.Table) -> np.ndarray:
        return self.run(self.inputs(table))


def load_served(store: Store, channel: str = PRODUCTION_CHANNEL) -> tuple[Predictor, Pointer]:
    """A predictor of the version that a channel points to, and the pointer.

    Raises:
        InputError: If nothing is published on the channel.
    """
    pointer = known_pointer(store, channel)
    return Predictor.from_version(Version.published(store, pointer.version)), pointer
