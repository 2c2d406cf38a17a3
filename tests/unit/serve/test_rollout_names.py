"""Servers that a rollout knows by a name, as those of a cluster, where they come and go meanwhile."""

from __future__ import annotations

import socket

import pytest

from components.common.deployments import Deployment
from components.common.errors import InputError
from components.serve.config import EmbeddingTierConfig
from components.serve.embedding_server import start
from components.serve.embedding_tier import EmbeddingTier
from components.serve.rollout import Rollout
from components.serve.rollout_plan import RolloutPlan
from components.serve.rollout_servers import is_gone, servers_at
from tests.serving import free_port


def test_name_stands_for_its_addresses():
    known = {to[0] for *_, to in socket.getaddrinfo("localhost", 9000, type=socket.SOCK_STREAM)}
    assert servers_at(("dns:localhost:9000",)) == tuple(
        sorted(f"[{ip}]:9000" if ":" in ip else f"{ip}:9000" for ip in known)
    )
    assert servers_at(("tables:9000", "dns:127.0.0.1:9000", "tables:9000")) == ("tables:9000", "127.0.0.1:9000")
    assert servers_at(()) == ()
    assert servers_at(("dns:9000",)) == ("dns:9000",), "a server that is called dns"
    for wrong in ("dns:nowhere.invalid:9000", "dns:localhost:nine", "dns::9000", "dns:localhost:70000"):
        with pytest.raises(InputError, match=f"{wrong}: stands for no server"):
            servers_at((wrong,))
    assert is_gone("127.0.0.2:9000", ("dns:127.0.0.1:9000",)) and not is_gone("127.0.0.1:9000", ("127.0.0.1:9000",))
    # As of a single server that starts again: what it is asked for waits.
    assert not is_gone("127.0.0.1:9000", ("dns:nowhere.invalid:9000",))


def test_rollout_asks_servers_that_come_and_not_those_that_go(published, fresh_store, monkeypatch):
    tiers = [EmbeddingTier(EmbeddingTierConfig(store_uri=fresh_store.root, grpc_port=free_port())) for _ in range(2)]
    servers = []
    for tier in tiers:
        tier.load()
        servers.append(start(tier)[0])
    stays, comes = (tier.config.grpc_port for tier in tiers)
    goes = free_port()
    # At first one server; then another is listed that is gone, which the name says when it is asked again.
    answers = [[stays], [stays, goes], [stays, comes]]

    def listed(host: str, port: str, **_: object) -> list[tuple]:
        ports = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", number)) for number in ports]

    monkeypatch.setattr("components.serve.rollout_servers.socket.getaddrinfo", listed)
    try:
        plan = RolloutPlan(("dns:tables:9000",), (), step_seconds=20.0)
        assert Rollout(fresh_store, "local", plan).to(published.new) == Deployment(current=published.new)
        assert [tier.versions for tier in tiers] == [[published.new], [published.new]]
    finally:
        for server in servers:
            server.stop(0)
