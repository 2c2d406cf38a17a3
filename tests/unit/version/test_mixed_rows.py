"""Rows of 8 bits as the sum of two rows of 4: by hand, at the ends of float16, and looked up in every kind of table."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from components.common.errors import InputError
from components.export.served_ranker import RowsToVectors
from components.features.feature_list import FeatureConfig
from components.version.int4 import Int4Layout, dequantize, quantize, quantize_int8, unpack
from components.version.packed_tables import PackedTable, PackedTables, look_up_rows
from components.version.table_packing import bytes_of, pack_tables
from tests.unit.version import test_int4
from tests.unit.version.test_int4 import BLOCKS, ROW, rows_of


def test_row_worked_by_hand():
    """Numbers 0, 255, 90 = 0x5A and 195 = 0xC3 with scale 0.5 and bias -1: high halves at 8, low ones at 0.5."""
    rows = np.array([[-1.0, 126.5, 44.0, 96.5]], dtype=np.float32)
    layout = Int4Layout(4, 4)
    coarse, fine = quantize_int8(rows, layout)
    assert coarse.tolist() == [[0xF0, 0xC5, *np.array([8.0, -1.0], "<f2").view(np.uint8)]]
    assert fine.tolist() == [[0xF0, 0x3A, *np.array([0.5, 0.0], "<f2").view(np.uint8)]]
    assert np.array_equal(dequantize(coarse, layout) + dequantize(fine, layout), rows)


@pytest.mark.parametrize("layout", [ROW, BLOCKS])
@pytest.mark.parametrize("heavy", [False, True])
def test_error_is_a_sixteenth_of_that_of_4_bits(layout, heavy):
    rows = rows_of(2000, heavy=heavy)
    coarse, fine = quantize_int8(rows, layout)
    of_8 = dequantize(coarse, layout) + dequantize(fine, layout) - rows
    of_4 = dequantize(quantize(rows, layout), layout) - rows
    ratios = np.sqrt((of_8**2).mean(axis=1) / (of_4**2).mean(axis=1))
    assert ratios.max() < 1 / 8 and 1 / 20 < ratios.mean() < 1 / 12


_ENDS = st.sampled_from([0.0, 1e-7, -3e-8, 6e-5, 32752.0, -32752.0, 1000.4])
_NUMBERS = st.one_of(_ENDS, st.floats(-32752, 32752, width=32), st.floats(-1e-5, 1e-5))


@settings(max_examples=200, deadline=None)
@given(arrays(np.float32, (3, 4), elements=_NUMBERS))
def test_sum_is_exact_wherever_float16_reaches(rows):
    """16 * scale is never rounded, and no number is further than half a step from its value."""
    layout = Int4Layout(4, 4)
    coarse, fine = quantize_int8(rows, layout)
    (high, wide, bias), (low, scale, none) = unpack(coarse, layout), unpack(fine, layout)
    assert np.isfinite(wide).all() and not none.any()
    assert np.array_equal(wide.astype(np.float64), 16 * scale.astype(np.float64))
    numbers = 16 * np.stack([high & 15, high >> 4], axis=-1) + np.stack([low & 15, low >> 4], axis=-1).astype(float)
    exact = numbers.reshape(3, 4) * scale.astype(float) + bias.astype(float)
    found = dequantize(coarse, layout) + dequantize(fine, layout)
    np.testing.assert_allclose(found, exact, rtol=2e-7, atol=np.abs(rows).max() * 2e-7)
    assert (np.abs(exact - rows) <= scale * 0.501 + 1e-7 * np.abs(rows) + 1e-40).all()


def test_without_hot_rows_the_file_is_what_it_was():
    tables = test_int4.tables_of()
    content, specs = pack_tables(tables, 7e-3)
    assert hashlib.sha256(content).hexdigest() == "ef41740aa73b73d2d02cdb2c2d9d2a8f90c3f38144835e994e674a671cfa6c6c"
    assert pack_tables(tables, 7e-3, {"user_id": np.zeros(0, np.int64)}) == (content, specs)
    written = specs[0].model_dump(exclude={"num_hot"})
    assert PackedTable.parse(written, "a manifest of before") == specs[0]


def features_with(**code):
    user = {"name": "user_id", "binary_code": {"code_bits": 9, "block_bits": 4, **code}} if code else None
    return FeatureConfig.parse(
        {
            "categorical": [user or {"name": "user_id", "num_rows": 50}, {"name": "item_id", "num_rows": 9}],
            "sequence": {"length": 2, "entities": ["item_id"], "action_types": ["click"]},
            "counts": {"entities": ["item_id"], "action_types": ["click"]},
        },
        "features",
    )


HOT = {"user_id": [0, 3, 17, 33, 47], "item_id": [8], "sequence_gap": [1, 2]}


def packed_with(features, heavy, hot):
    tables = {name: rows_of(rows, heavy=name in heavy) for name, rows in features.tables.items()}
    return tables, *pack_tables(tables, 7e-3, {name: np.array(ids) for name, ids in hot.items()})


def value_of(rows, layout, ids, hot):
    """Float32 vectors of rows, each quantized as it should be; one row at a time."""
    vectors = []
    for row in ids:
        coarse, fine = quantize_int8(rows[[row]], layout)
        of_8 = dequantize(coarse, layout) + dequantize(fine, layout)
        vectors.append((of_8 if row in hot else dequantize(quantize(rows[[row]], layout), layout))[0])
    return np.stack(vectors)


@pytest.mark.parametrize(
    ("code", "heavy", "hot"),
    [
        ({}, set(), HOT),
        ({}, {"user_id"}, HOT),
        ({}, {"user_id", "item_id", "sequence_gap", "sequence_action_type"}, HOT),
        ({}, {"item_id"}, {"user_id": range(50)}),
        ({"combine": "sum", "split": "succession"}, {"user_id"}, HOT),
        ({"combine": "sum", "split": "skip"}, set(), HOT),
        ({"combine": "concatenate", "split": "succession"}, {"item_id"}, HOT),
        ({"combine": "concatenate", "split": "skip"}, {"user_id"}, {"user_id": [47]}),
    ],
)
def test_look_up_adds_what_hot_rows_have_beyond_4_bits(code, heavy, hot):
    features = features_with(**code)
    tables, content, specs = packed_with(features, heavy, hot)
    packed = PackedTables(np.frombuffer(content, np.uint8), specs, features)
    layouts = {spec.name: spec.layout for spec in specs}
    assert {name for name in layouts if layouts[name] == BLOCKS} == heavy
    generator = np.random.default_rng(5)
    for columns, shape in ((features.categorical_tables, (60,)), (features.sequence_tables, (20, 2))):
        ids = np.stack([generator.integers(features.num_ids[name], size=shape) for name in columns], axis=-1)
        rows = look_up_rows(columns, specs, features)
        found = packed.look_up(columns, ids)
        assert found.shape == (*shape, len(rows), packed.layout.row_bytes)
        vectors = RowsToVectors([row.vector for row in rows], packed.layout)(torch.from_numpy(found)).numpy()
        expected = []
        for column, name in enumerate(columns):
            binary = features.binary_codes.get(name)
            blocks = binary.rows(ids[..., column].reshape(-1)) if binary else [ids[..., column].reshape(-1)]
            parts = [value_of(tables[name], layouts[name], block, list(hot.get(name, ()))) for block in blocks]
            expected += parts if binary and binary.combine == "concatenate" else [sum(parts)]
        assert np.allclose(vectors.reshape(-1, len(expected), 32), np.stack(expected, axis=1), rtol=0, atol=1e-7)


def test_cold_rows_keep_their_bytes_and_fine_ones_are_counted():
    features = features_with()
    _, plain, plain_specs = packed_with(features, {"item_id"}, {})
    _, mixed, specs = packed_with(features, {"item_id"}, HOT)
    for before, spec in zip(plain_specs, specs, strict=True):
        assert spec.first_byte % spec.layout.row_bytes == 0
        assert (spec.layout, spec.relative_error) == (before.layout, before.relative_error)
        rows, old = (s.rows(np.frombuffer(c, np.uint8)) for s, c in ((spec, mixed), (before, plain)))
        hot = HOT.get(spec.name, [])
        cold = sorted(set(range(spec.num_rows)) - set(hot))
        assert np.array_equal(rows[cold], old[cold]) and not (rows[hot] == old[hot]).all(axis=1).any()
        assert len(rows) == spec.num_rows + (len(hot) + 1 if hot else 0) and (not hot or not rows[-1].any())
        ids = spec.hot_ids(np.frombuffer(mixed, np.uint8))
        assert ids.tolist() == hot and ids.flags.aligned
    more = bytes_of(specs).int4 - bytes_of(plain_specs).int4
    # Fine rows and zeros of 20 and 24 bytes, 8 an id, and up to 7 to begin those at a multiple of 8.
    least = 6 * 20 + 2 * 24 + 3 * 20 + 8 * (5 + 1 + 2)
    assert least <= more <= least + 3 * 7
    with pytest.raises(InputError, match="bytes, the manifest's tables take"):
        PackedTables(np.frombuffer(mixed[:-1], np.uint8), specs, features)
