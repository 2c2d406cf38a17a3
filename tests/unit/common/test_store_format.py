import pytest

from components.common import storage
from components.common.errors import InputError
from components.common.layout import Store
from components.common.records import write_record
from components.common.store_format import FORMAT, StoreFormat, check_format, claim_format


def test_new_store_is_marked_and_known_again(tmp_path):
    store = Store(str(tmp_path))
    storage.write_bytes(storage.join_uri(store.root, "logs", "kept"), b"")
    check_format(store)
    assert not storage.exists(store.format()), "looking at a store writes nothing"
    claim_format(store)
    storage.write_bytes(storage.join_uri(store.root, "ledger", "row"), b"{}")
    claim_format(store)
    check_format(store)


def test_store_of_an_earlier_release_is_refused(tmp_path):
    """Those had arms by fixed names, and no mark."""
    store = Store(str(tmp_path))
    storage.write_bytes(storage.join_uri(store.root, "ledger", "event_date=2026-01-01", "control.json"), b"{}")
    for refuse in (check_format, claim_format):
        with pytest.raises(InputError, match="a store of format 1, and this release's is 2: .* use a new store"):
            refuse(store)
    assert not storage.exists(store.format())


def test_store_of_a_later_release_is_refused(tmp_path):
    store = Store(str(tmp_path))
    write_record(store.format(), StoreFormat(format=FORMAT + 1))
    with pytest.raises(InputError, match=f"format {FORMAT + 1}"):
        check_format(store)
