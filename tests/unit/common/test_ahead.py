import threading

import pytest

from components.common.ahead import ahead


def test_error_of_the_thread_is_raised_here():
    def items():
        yield 1
        raise OSError("the disk is gone")

    coming = ahead(items(), 2)
    assert next(coming) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(coming)


def test_stopping_early_ends_the_thread():
    before = threading.active_count()
    coming = ahead(iter(range(10**9)), 2)
    assert next(coming) == 0
    coming.close()
    assert threading.active_count() == before
