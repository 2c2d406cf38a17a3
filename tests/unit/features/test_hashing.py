import numpy as np
import pyarrow as pa

from components.features.hashing import (
    MISSING,
    added_up,
    combine_hashes,
    feature_ids,
    hash_identifiers,
    uniform_from_hash,
)


def test_hashes_never_change():
    """A change of these values would change every sampling decision and every table row of trained models."""
    assert hash_identifiers(pa.array([0, 1, -1])).tolist() == GOLDEN_INTEGERS
    assert hash_identifiers(pa.array(["", "a", "household 7"])).tolist() == GOLDEN_STRINGS


GOLDEN_INTEGERS = [16294208416658607535, 10451216379200822465, 16490336266968443936]
GOLDEN_STRINGS = [1760245841805064774, 13950350942979735504, 3187952121287997706]


def test_integer_width_does_not_matter():
    assert (hash_identifiers(pa.array([5], pa.int32())) == hash_identifiers(pa.array([5], pa.int64()))).all()


def test_dictionary_and_chunks_do_not_matter():
    plain = pa.array(["x", "y", None, "x"])
    chunked = pa.chunked_array([plain.slice(0, 1), plain.slice(1)])
    expected = hash_identifiers(plain)
    assert (hash_identifiers(plain.dictionary_encode()) == expected).all()
    assert (hash_identifiers(chunked) == expected).all()
    assert expected[2] == MISSING


def test_missing_and_empty():
    assert (hash_identifiers(pa.array([None, None], pa.string())) == MISSING).all()
    assert hash_identifiers(pa.array([1, None]))[1] == MISSING
    assert len(hash_identifiers(pa.chunked_array([], pa.string()))) == 0


def test_combination_depends_on_order():
    a, b = hash_identifiers(pa.array([1])), hash_identifiers(pa.array([2]))
    assert combine_hashes(a, b) != combine_hashes(b, a)


def test_feature_ids_are_not_negative_and_uniform_is_uniform():
    hashes = hash_identifiers(pa.array(np.arange(100_000)))
    assert (feature_ids(hashes) >= 0).all()
    uniform = uniform_from_hash(hashes)
    assert 0 <= uniform.min() and uniform.max() < 1
    counts = np.histogram(uniform, bins=10)[0]
    assert abs(counts - 10_000).max() < 500


def test_counts_are_added_up_by_id():
    ids, counts = added_up(np.array([5, 2, 5, 9, 2]), np.array([1, 2, 3, 4, 5]))
    assert ids.tolist() == [2, 5, 9] and counts.tolist() == [7, 4, 4]
    assert [len(part) for part in added_up(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))] == [0, 0]
