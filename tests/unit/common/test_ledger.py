import json
from datetime import date

import pytest

from components.common import storage
from components.common.errors import InputError
from components.common.layout import Store
from components.common.ledger import find_row, is_final, read_ledger, write_row
from components.common.records import write_record
from components.common.releases import Pointer, read_pointer
from tests.unit.gate.rows import ledger_row

DAY = date(2026, 1, 1)


@pytest.fixture()
def store(tmp_path):
    return Store(str(tmp_path))


def test_records_are_read_in_order(store):
    for day in (3, 1, 2):
        for arm in ("baseline", "sparse_optimizer"):
            write_row(store, ledger_row(arm, day))
    rows = [(row.event_date.day, row.arm) for row in read_ledger(store)]
    assert rows == [(day, arm) for day in (1, 2, 3) for arm in ("baseline", "sparse_optimizer")]
    assert {row.event_date for row in read_ledger(store, through=date(2026, 1, 2))} == {DAY, date(2026, 1, 2)}


def test_records_are_final_when_their_run_is_finished(store):
    assert not is_final(store, "batch", DAY) and not is_final(store, "daily", DAY)
    storage.write_bytes(store.finished_run("batch", DAY), b"{}")
    assert is_final(store, "batch", DAY), "the batch run may not change them any more"
    assert not is_final(store, "daily", DAY), "the first daily run scores the same day"
    storage.write_bytes(store.finished_run("daily", DAY), b"{}")
    assert is_final(store, "batch", DAY) and is_final(store, "daily", DAY)


def test_record_that_was_edited_by_hand_is_refused(store):
    write_row(store, ledger_row("baseline", 1, auc=0.7))
    uri = store.ledger_row(DAY, "baseline")
    values = json.loads(storage.read_bytes(uri))
    values["scores"]["checkout_given_view"]["auc"] = 0.9
    storage.write_bytes(uri, json.dumps(values).encode())
    for read in (lambda: find_row(store, DAY, "baseline"), lambda: read_ledger(store)):
        with pytest.raises(InputError, match=r"baseline\.json: was changed after it had been written; restore it, or"):
            read()


@pytest.mark.parametrize("content", [b"", b"{", b'{"arm": "baseline"', b"[]", b'{"arm": "baseline"}', b"\xff\xfe"])
def test_record_that_was_cut_short_is_named_with_its_remedy(store, content):
    storage.write_bytes(store.ledger_row(DAY, "baseline"), content)
    storage.write_bytes(store.pointer("CURRENT"), content)
    with pytest.raises(
        InputError, match=r"baseline\.json: cut short, or no record of this release; restore it, or delete"
    ):
        find_row(store, DAY, "baseline")
    with pytest.raises(InputError, match=r"CURRENT: cut short, or no record of this release; restore it, or delete it"):
        read_pointer(store)


def test_record_of_another_class_is_named(store):
    pointer = Pointer(version="v", arm="a", checkpoint_digest="c", trained_through=DAY, published_on=DAY)
    write_record(store.ledger_row(DAY, "baseline"), pointer)
    with pytest.raises(InputError, match=r"baseline\.json: not a LedgerRow of this release"):
        find_row(store, DAY, "baseline")


def test_folder_that_names_no_day_is_named(store):
    storage.write_bytes(storage.join_uri(store.root, "ledger", "event_date=2026-02-31", "baseline.json"), b"{}")
    with pytest.raises(InputError, match="ledger/event_date=2026-02-31: names no day; rename it, or delete it"):
        read_ledger(store)
