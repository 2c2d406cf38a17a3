"""INT4 rows: by hand, against torch's operator, and within half a step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from components.common.errors import InputError
from components.export.served_ranker import RowsToVectors
from components.features.feature_list import FeatureConfig
from components.version.int4 import Int4Layout, dequantize, layouts, quantize, relative_error
from components.version.packed_tables import PackedTables
from components.version.table_packing import pack_tables

ROW, BLOCKS = Int4Layout(32, 32), Int4Layout(32, 16)


def rows_of(count=500, seed=0, heavy=False):
    generator = np.random.default_rng(seed)
    drawn = generator.standard_t(3, (count, 32)) if heavy else generator.normal(size=(count, 32))
    return (drawn * 0.05).astype(np.float32)


def test_row_worked_by_hand():
    """Numbers 0, 15, 5, 10 with scale 0.5 and bias -1: 0xF0, 0xA5, then both as float16."""
    rows = np.array([[-1.0, 6.5, 1.5, 4.0]], dtype=np.float32)
    packed = quantize(rows, Int4Layout(4, 4))
    assert packed.tolist() == [[0xF0, 0xA5, *np.array([0.5, -1.0], "<f2").view(np.uint8)]]
    assert np.array_equal(dequantize(packed, Int4Layout(4, 4)), rows)


@pytest.mark.parametrize(("layout", "row_bytes"), [(ROW, 20), (BLOCKS, 24), (Int4Layout(4, 4), 6)])
def test_rows_take_the_bytes_stated(layout, row_bytes):
    assert layout.row_bytes == row_bytes
    assert quantize(np.zeros((3, layout.dim), np.float32), layout).shape == (3, row_bytes)


def test_values_are_those_of_torch_s_operator():
    packed = quantize(rows_of(), ROW)
    look_up = torch.ops.quantized.embedding_bag_4bit_rowwise_offsets
    found = look_up(torch.from_numpy(packed), torch.arange(500), torch.arange(501), include_last_offset=True)
    assert np.array_equal(found.numpy(), dequantize(packed, ROW))


@settings(max_examples=60, deadline=None)
@given(arrays(np.float32, (3, 8), elements=st.floats(-100, 100, width=32)))
def test_error_is_at_most_that_of_the_whole_range(rows):
    """Clipping is only chosen where it loses less: half a step everywhere, and what float16 rounds."""
    layout = Int4Layout(8, 8)
    found = dequantize(quantize(rows, layout), layout)
    span = rows.max(axis=1) - rows.min(axis=1)
    bound = span / 30 + 2e-3 * np.abs(rows).max(axis=1) + 1e-6
    assert (np.sqrt(((found - rows) ** 2).mean(axis=1)) <= bound).all()


def test_blocks_are_finer_and_heavy_tails_choose_them():
    for heavy in (False, True):
        rows = rows_of(heavy=heavy)
        errors = [relative_error(rows, quantize(rows, layout), layout) for layout in layouts(32)]
        assert errors[1] < errors[0] < 0.02
    _, specs = pack_tables({"light": rows_of(), "heavy": rows_of(heavy=True)}, max_error=7e-3)
    assert [spec.layout.row_bytes for spec in specs] == [20, 24]


def test_numbers_that_float16_cannot_hold_are_refused():
    rows = rows_of()
    rows[77, 3] = np.nan
    with pytest.raises(ValueError, match="row 77"):
        quantize(rows, ROW)


FEATURES = FeatureConfig.parse(
    {
        "categorical": [{"name": "user_id", "num_rows": 50}, {"name": "item_id", "num_rows": 9}],
        "sequence": {"length": 2, "entities": ["item_id"], "action_types": ["click"]},
        "counts": {"entities": ["item_id"], "action_types": ["click"]},
    },
    "features",
)


def tables_of():
    heavy = {"user_id"}
    return {name: rows_of(rows, heavy=name in heavy) for name, rows in FEATURES.tables.items()}


def test_look_up_gives_every_table_s_rows_in_one_shape():
    tables = tables_of()
    content, specs = pack_tables(tables, 7e-3)
    assert {spec.name: spec.layout.num_blocks for spec in specs}["user_id"] == 2
    assert all(spec.first_byte % spec.layout.row_bytes == 0 for spec in specs)
    packed = PackedTables(np.frombuffer(content, np.uint8), specs, FEATURES)
    ids = np.array([[49, 8], [0, 3], [7, 0]])
    found = packed.look_up(("user_id", "item_id"), ids)
    assert found.shape == (3, 2, 24) and packed.layout == BLOCKS
    for column, name in enumerate(("user_id", "item_id")):
        layout = next(spec.layout for spec in specs if spec.name == name)
        expected = dequantize(quantize(tables[name], layout), layout)[ids[:, column]]
        assert np.array_equal(dequantize(found[:, column], BLOCKS), expected)


@pytest.mark.parametrize(("ids", "named"), [([[0, -1]], "id -1 of item_id"), ([[1, 2], [50, 0]], "id 50 of user_id")])
def test_ids_out_of_range_are_refused(ids, named):
    content, specs = pack_tables(tables_of(), 7e-3)
    packed = PackedTables(np.frombuffer(content, np.uint8), specs, FEATURES)
    with pytest.raises(InputError, match=f"{named}: must be from 0 to"):
        packed.look_up(("user_id", "item_id"), np.array(ids))


def test_float16_of_bytes_is_exact():
    """All finite float16, as the exported graph reads them: scales of the numbers 1 and 0, and biases."""
    bits = np.arange(2**16, dtype="<u2")
    values = bits[np.isfinite(bits.view("<f2"))]
    rows = np.zeros((2, len(values), 1, 5), dtype=np.uint8)
    rows[0, :, 0, 0], rows[0, :, 0, 1:3], rows[1, :, 0, 3:] = 1, *(values.view(np.uint8).reshape(-1, 2),) * 2
    found = RowsToVectors([0], Int4Layout(2, 2))(torch.from_numpy(rows)).numpy()[:, :, 0]
    exact = values.view("<f2").astype(np.float32)
    assert np.array_equal(found[0], np.stack([exact, 0 * exact], axis=1)) and np.array_equal(found[1].T, [exact, exact])


def test_file_that_is_too_short_or_of_other_tables_is_refused():
    content, specs = pack_tables(tables_of(), 7e-3)
    with pytest.raises(InputError, match="bytes, the manifest's tables take"):
        PackedTables(np.frombuffer(content[:-1], np.uint8), specs, FEATURES)
    other = FEATURES.model_copy(update={"categorical": FEATURES.categorical[:1]})
    with pytest.raises(InputError, match="not those of the feature list"):
        PackedTables(
            np.frombuffer(content, np.uint8),
            specs,
            FeatureConfig.model_validate({**other.model_dump(), "sequence": {"length": 2, "entities": []}}),
        )


def test_table_that_cannot_be_packed_is_named():
    tables = tables_of()
    tables["item_id"][2, 5] = np.inf
    with pytest.raises(InputError, match="table item_id: row 2 holds numbers that float16 cannot"):
        pack_tables(tables, 7e-3)
