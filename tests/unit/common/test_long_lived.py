import gc
import subprocess
import sys

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
            kept = [[] for _ in range(1000)]
            raise ImportError
        assert gc.isenabled() is is_enabled
        assert gc.get_freeze_count() >= before + len(kept)
    finally:
        (gc.enable if was_enabled else gc.disable)()


def test_command_line_ends_in_silence():
    """DuckDB, imported with the rest, would say that it leaks; so it is imported when it is needed."""
    script = (
        "import cli.main, sys; assert 'duckdb' not in sys.modules; import duckdb; duckdb.sql('select 1').fetchall()"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == done.stdout == ""
