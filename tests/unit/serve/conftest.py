"""Servers of the published versions."""

from __future__ import annotations

import pytest

from components.serve.client import RankerClient
from tests.serving import Server


@pytest.fixture(scope="session")
def servers(published):
    with Server("embedding", published.store.root) as embedding:
        options = ("--embedding-address", embedding.address, "--set", "max_candidates=300")
        with Server("ranker", published.store.root, *options) as ranker:
            embedding.wait_ready()
            ranker.wait_ready()
            yield embedding, ranker


@pytest.fixture(scope="session")
def client(servers):
    with RankerClient(servers[1].address) as found:
        yield found
