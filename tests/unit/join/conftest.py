"""A store to join in."""

import pytest

from components.common.layout import Store
from tests.conftest import Deployment, copy_clean_logs


@pytest.fixture()
def logs(joined: Deployment, tmp_path) -> Store:
    """A store with the same clean logs as `joined`, without examples."""
    return copy_clean_logs(joined, str(tmp_path / "store"))
