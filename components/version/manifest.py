"""What a published version consists of, and its manifest."""

from __future__ import annotations

from datetime import date
from typing import Any, ClassVar, Literal

import numpy as np

from components.common.config import GrownConfig
from components.common.digests import digest_bytes
from components.common.lineage import Lineage
from components.common.manifests import Manifest
from components.features.feature_list import FeatureConfig
from components.features.objectives import DEFAULT_SERVED
from components.version.packed_ids import PackedIds
from components.version.packed_tables import PackedTable
from components.version.parity import Parity

RANKER_FILE = "ranker.onnx"
TABLES_FILE = "tables.int4"
# Which row each exact id has, if the feature list has such ids.
IDS_FILE = "ids.bin"
# Tables and ranker in one, where it is asked for.
PREDICTOR_FILE = "predictor.onnx"
# Packed rows, numbers as they are, packed rows of each user's actions, how many these are, and each row's user.
ONNX_INPUTS = ("categorical_rows", "dense", "sequence_rows", "lengths", "users")
PREDICTOR_INPUTS = ("categorical_ids", "dense", "sequence_ids", "lengths")
ONNX_OUTPUT = "probabilities"


class VersionManifest(GrownConfig, Manifest):
    """One version: what servers need of it, and what people ask of it.

    Attributes:
        checkpoint_digest: What it was exported from.
        features: Its feature list.
        objectives: Of the ranker's outputs, in order.
        served: Those of them that servers answer.
        tables: What lies where in the file of tables.
        ids: What lies where in the file of exact ids, if it has any.
        vectors: The day of the delivery of pretrained vectors that it has, by feature.
        identifiers: By log and column, whether identifiers are integers or strings, which decides their hash.
        lineage: Where its training comes from.
        parity: How its predictions differ from the checkpoint's.
        recipe: How it was trained, kept for people.
        blessing: The verdict that released it, kept for people.
    """

    kind: ClassVar[str] = "version"
    schema_version: ClassVar[int] = 2
    later: ClassVar[tuple[str, ...]] = ("ids", "vectors")

    checkpoint_digest: str
    features: FeatureConfig
    objectives: tuple[str, ...]
    served: tuple[str, ...] = DEFAULT_SERVED
    tables: tuple[PackedTable, ...]
    ids: tuple[PackedIds, ...] = ()
    vectors: dict[str, date] = {}
    identifiers: dict[Literal["impressions", "actions"], dict[str, Literal["int64", "string"]]]
    lineage: Lineage
    parity: Parity
    recipe: dict[str, Any]
    blessing: dict[str, Any]

    @classmethod
    def upgraded(cls, values: dict[str, Any], schema_version: int) -> dict[str, Any] | None:
        """Versions stay published when a release changes their manifest: servers go on with those of form 1."""
        if schema_version != 1:
            return None
        details = dict(values["details"])
        return {
            "origin": {"step": "export", "step_version": 0, "inputs": values["inputs"], "settings": values["settings"]},
            "files": values["files"],
            "checkpoint_digest": values["inputs"]["checkpoint"],
            "recipe": details.pop("train"),
            **details,
        }

    @property
    def version_digest(self) -> str:
        """What names a version that this release wrote: the digest of its manifest's bytes."""
        return digest_bytes(self.to_bytes())


def known_heads(objectives: tuple[str, ...], lineage: Lineage, probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """By objective, the columns of shape (n, objectives) but those of heads that have learnt nothing."""
    columns = dict(zip(objectives, probabilities.T, strict=True))
    return {name: values for name, values in columns.items() if name not in lineage.left_out}
