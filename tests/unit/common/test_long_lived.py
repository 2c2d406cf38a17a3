import gc

import pytest

from components.common.long_lived import long_lived


@pytest.mark.parametrize("is_enabled", [True, False])
def test_nothing_is_collected_meanwhile_and_all_is_as_before_afterwards(is_enabled):
    was_enabled = gc.isenabled()
    (gc.enable if is_enabled else gc.disable)()
    try:
        before = gc.get_freeze_count()
        with pytest.raises(ImportError), long_lived():
            assert not gc.isenabled()
            kept = [{} for _ in range(1000)]
            raise ImportError
        assert gc.isenabled() is is_enabled
        assert gc.get_freeze_count() >= before + len(kept)
    finally:
        (gc.enable if was_enabled else gc.disable)()
