from datetime import date

import pytest

from components.common.errors import InputError
from components.common.layout import Store
from components.common.ledger import append_row, read_ledger
from tests.unit.gate.rows import ledger_row


def test_append_is_idempotent_and_read_in_order(tmp_path):
    store = Store(str(tmp_path))
    for day in (3, 1, 2):
        for arm in ("control", "candidate"):
            append_row(store, ledger_row(arm, day))
            append_row(store, ledger_row(arm, day))
    found = [(row.event_date.day, row.arm) for row in read_ledger(store)]
    assert found == [(day, arm) for day in (1, 2, 3) for arm in ("candidate", "control")]
    assert {row.event_date for row in read_ledger(store, through=date(2026, 1, 2))} == {
        date(2026, 1, 1),
        date(2026, 1, 2),
    }


def test_another_record_under_the_same_key_is_refused(tmp_path):
    store = Store(str(tmp_path))
    append_row(store, ledger_row("control", 1, auc=0.7))
    with pytest.raises(InputError, match="append-only"):
        append_row(store, ledger_row("control", 1, auc=0.8))
    assert read_ledger(store)[0].scores["checkout_given_view"].auc == 0.7
