import numpy as np
import pyarrow as pa

from components.features.hashing import (
    MISSING,
    added_up,
    combine_hashes,
    feature_ids,
    hash_identifiers,
    is_in,
    splitmix64,
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


def test_mixing_depends_neither_on_the_number_of_values_nor_on_their_shape():
    values = np.arange(3 * 8192 + 5)
    mixed = splitmix64(values)
    assert mixed[[0, 8191, 8192, -1]].tolist() == [int(splitmix64(values[[row]])[0]) for row in (0, 8191, 8192, -1)]
    assert len(np.unique(mixed)) == len(values)
    assert (splitmix64(values[:8000].reshape(2, 4000)).ravel() == mixed[:8000]).all()
    assert (splitmix64(values[::3]) == mixed[::3]).all()
    assert splitmix64(values[:0]).shape == (0,)


def test_membership_is_of_whole_hashes():
    """Not of the last bits alone, by which most are told."""
    known = splitmix64(np.arange(1000))
    near = known ^ np.uint64(1 << 40)
    asked = np.concatenate([known[::-1], near, splitmix64(np.arange(500, 5000))])
    assert (is_in(asked, known) == np.isin(asked, known)).all()
    assert is_in(asked, known).sum() == 1500
    assert not is_in(asked, known[:0]).any() and not len(is_in(asked[:0], known))
