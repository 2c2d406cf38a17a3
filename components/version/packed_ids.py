"""Which rows training gave to a version's ids: one flat file, which may be mapped into memory."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydantic import Field

from components.common.config import Config
from components.common.errors import InputError
from components.features.exact_ids import ExactIds
from components.features.feature_list import FeatureConfig
from components.features.learned_rows import RowIndex

_KEY, _SLOT = np.dtype("<i8"), np.dtype("<i4")


class PackedIds(Config):
    """One table's index in the file: keys, little-endian int64, then slots, int32.

    Of exact ids a key is the id of a row, and slots are a hash table; of quantiles keys are where ranges begin.

    Attributes:
        name: The table.
        num_keys: Keys.
        num_slots: Slots, a power of two; of quantiles 0.
        first_byte: Where it starts, a multiple of 8.
    """

    name: str
    num_keys: int = Field(ge=0)
    num_slots: int = Field(ge=0)
    first_byte: int = Field(ge=0, multiple_of=8)

    @property
    def _slots_byte(self) -> int:
        return self.first_byte + self.num_keys * _KEY.itemsize

    @property
    def end_byte(self) -> int:
        """Where what belongs to it ends."""
        return self._slots_byte + self.num_slots * _SLOT.itemsize

    def keys(self, content: np.ndarray) -> np.ndarray:
        """The keys in the file's bytes, int64."""
        return content[self.first_byte : self._slots_byte].view(_KEY)

    def slots(self, content: np.ndarray) -> np.ndarray:
        """The slots in the file's bytes, int32."""
        return content[self._slots_byte : self.end_byte].view(_SLOT)


def one_shared_row(num_keys: int) -> ExactIds:
    """The rule of pretrained vectors: each has its own place, behind which one is for all ids without any."""
    return ExactIds(capacity=max(num_keys, 1), oov_rows=1)


def pack_ids(indexes: Mapping[str, RowIndex]) -> tuple[bytes, list[PackedIds]]:
    """The file, and what lies where in it."""
    parts, specs, position = [], [], 0
    for name, index in indexes.items():
        keys, slots = index.keys.astype(_KEY), index.slots.astype(_SLOT)
        spec = PackedIds(name=name, num_keys=len(keys), num_slots=len(slots), first_byte=position)
        parts += [keys.tobytes(), slots.tobytes()]
        specs.append(spec)
        position = spec.end_byte
    return b"".join(parts), specs


def indexes_in(content: np.ndarray, specs: list[PackedIds], features: FeatureConfig) -> dict[str, RowIndex]:
    """Which row each id has, by table, from the file's bytes, uint8, shape (size,).

    Raises:
        InputError: If the file is not as long as its ids need, or they are not those of the feature list.
    """
    # Still mapped, but a plain array: NumPy is slower with its own class of mapped ones.
    content = np.asarray(content)
    needed = max((spec.end_byte for spec in specs), default=0)
    if len(content) != needed:
        raise InputError(f"ids: {len(content)} bytes, the manifest's ids take {needed}; restore the file")
    if {spec.name for spec in specs} != {*features.indexed}:
        raise InputError(f"ids: of {[spec.name for spec in specs]}, not of {[*features.indexed]}; restore the version")
    with_slots = {*features.exact_ids, *features.vector_names}
    slots_wrong = [spec.name for spec in specs if (spec.name in with_slots) != (spec.num_slots >= 2)]
    if slots_wrong:
        raise InputError(
            f"ids: of {slots_wrong[0]} with or without slots, against the feature list; restore the version"
        )
    rules = {spec.name: features.learned.get(spec.name) or one_shared_row(spec.num_keys) for spec in specs}
    return {spec.name: rules[spec.name].index(spec.keys(content), spec.slots(content)) for spec in specs}
