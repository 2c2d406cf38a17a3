"""64-bit hashes of identifiers, equal on every machine and in every version."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

_U64 = np.uint64
MISSING = _U64(0)
_INCREMENT, _LAST_SHIFT = _U64(0x9E3779B97F4A7C15), _U64(31)
_ROUNDS = ((_U64(30), _U64(0xBF58476D1CE4E5B9)), (_U64(27), _U64(0x94D049BB133111EB)))
# Numbers that are mixed at once: they stay in the processor's nearest cache.
_BLOCK = 8192
_LAST_BITS = 20


def splitmix64(values: np.ndarray) -> np.ndarray:
    """Mix int64 or uint64 values of any shape to uint64 (Steele et al. 2014, the finaliser of SplitMix)."""
    given = np.ascontiguousarray(values).view(_U64)
    mixed, flat = np.empty(given.shape, dtype=_U64), given.reshape(-1)
    blocks, shifted = mixed.reshape(-1), np.empty(min(_BLOCK, given.size), dtype=_U64)
    for start in range(0, given.size, _BLOCK):
        block = blocks[start : start + _BLOCK]
        scratch = shifted[: len(block)]
        np.add(flat[start : start + _BLOCK], _INCREMENT, out=block)
        for shift, factor in _ROUNDS:
            np.right_shift(block, shift, out=scratch)
            np.bitwise_xor(block, scratch, out=block)
            np.multiply(block, factor, out=block)
        np.right_shift(block, _LAST_SHIFT, out=scratch)
        np.bitwise_xor(block, scratch, out=block)
    return mixed


def hash_identifiers(column: pa.Array | pa.ChunkedArray | np.ndarray) -> np.ndarray:
    """Hash integer or string identifiers to uint64, shape (n,); nulls become `MISSING`, NumPy's int64 have none.

    Integers go through SplitMix64, strings through the keyed SipHash of `pandas.util.hash_array`, each distinct value
    once.
    """
    if isinstance(column, np.ndarray):
        return splitmix64(column)
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if pa.types.is_integer(array.type):
        known = pc.fill_null(array, 0) if array.null_count else array
        hashed = splitmix64(known.cast(pa.int64()).to_numpy(zero_copy_only=False))
    elif len(array) == array.null_count:
        return np.full(len(array), MISSING)
    else:
        encoded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
        words = np.asarray(encoded.dictionary.to_pylist(), dtype=object)
        indices = pc.fill_null(encoded.indices, 0).to_numpy(zero_copy_only=False)
        hashed = pd.util.hash_array(words, categorize=False)[indices]
    if array.null_count:
        hashed = np.where(array.is_null().to_numpy(zero_copy_only=False), MISSING, hashed)
    return hashed


def combine_hashes(*hashes: np.ndarray) -> np.ndarray:
    """One uint64 key from several, order mattering: (user, entity), (user, entity, action type)."""
    combined = hashes[0]
    for other in hashes[1:]:
        combined = splitmix64(splitmix64(combined) ^ other)
    return combined


def positions_in(keys: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Where each key stands in `known`, whose values are distinct, or -1; int64, shape (n,)."""
    places = pc.index_in(pa.array(keys), value_set=pa.array(known))
    return pc.fill_null(places, -1).to_numpy(zero_copy_only=False).astype(np.int64)


def is_in(keys: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Whether each hash is one of some, bool, shape (n,); both uint64."""
    # Few others get past a table of last bits, which is smaller and nearer than a hash table.
    table = np.zeros(2**_LAST_BITS, dtype=bool)
    table[_last_bits(known)] = True
    found = np.take(table, _last_bits(keys))
    near = np.flatnonzero(found)
    found[near] = pc.is_in(pa.array(keys[near]), value_set=pa.array(known)).to_numpy(zero_copy_only=False)
    return found


def _last_bits(hashes: np.ndarray) -> np.ndarray:
    return (hashes & _U64(2**_LAST_BITS - 1)).view(np.int64)


def added_up(ids: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Different ids, ascending, and the sum of what each was counted; int64, shape (n,) to (u,) each."""
    order = np.argsort(ids, kind="stable")
    ids, counts = ids[order], counts[order]
    starts = np.flatnonzero(np.concatenate([[True], ids[1:] != ids[:-1]])) if len(ids) else np.zeros(0, dtype=np.int64)
    return ids[starts], np.add.reduceat(counts, starts) if len(ids) else counts


def feature_ids(hashes: np.ndarray) -> np.ndarray:
    """Non-negative int64 ids, so that `id % rows` is the same in NumPy, torch and any server."""
    return (hashes >> _U64(1)).astype(np.int64)


def uniform_from_hash(hashes: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1), float64, from uint64 hashes."""
    return (hashes >> _U64(11)).astype(np.float64) * 2.0**-53
