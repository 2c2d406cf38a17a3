"""A store to join in."""

import pytest

from components.common.layout import Store
from tests.conftest import Deployment, copy_clean_logs, with_every_kind


@pytest.fixture()
def logs(joined: Deployment, tmp_path) -> Store:
    """A store with the same clean logs as `joined`, without examples."""
    return copy_clean_logs(joined, str(tmp_path / "store"))


@pytest.fixture(scope="session")
def joined(joined: Deployment) -> Deployment:
    """The shared deployment under the feature list that its examples were joined by."""
    return with_every_kind(joined)
