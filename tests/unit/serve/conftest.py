"""Servers of the published versions."""

from __future__ import annotations

import pytest

from components.serve.client import RankerClient
from tests.relay import Relay
from tests.serving import Server, stub_of


@pytest.fixture(scope="session")
def servers(published):
    online = ("--set", "online_features=true", "--set", "online_seconds=0.5")
    with Server("embedding", published.store.root, *online) as embedding:
        options = ("--embedding-address", embedding.address, "--set", "max_candidates=300")
        with Server("ranker", published.store.root, *options) as ranker:
            embedding.wait_ready()
            ranker.wait_ready()
            yield embedding, ranker


@pytest.fixture(scope="session")
def client(servers):
    with RankerClient(servers[1].address) as found:
        yield found


@pytest.fixture
def relay(servers):
    """Before the ranker, in this process."""
    with Relay(stub_of(servers[1])) as found:
        yield found


@pytest.fixture(scope="session")
def acting(published):
    """The number of a request with many actions."""
    return max(range(40), key=lambda number: len(published.requests[number]["actions"]))
