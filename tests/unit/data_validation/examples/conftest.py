"""Examples to look at."""

import pytest

from tests.conftest import Deployment, with_every_kind


@pytest.fixture(scope="session")
def joined(joined: Deployment) -> Deployment:
    """The shared deployment under the feature list that its examples were joined by."""
    return with_every_kind(joined)
