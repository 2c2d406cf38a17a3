"""What servers that stop or are killed under load cost, and how long a bad version answers; one figure a line.

Two servers of each tier serve a version of the demo's to clients of both protocols, which never ask twice.
"""

from __future__ import annotations

import signal
import sys
import tempfile
from contextlib import redirect_stdout

from components.common.deployments import Deployment, known_deployment
from components.common.layout import Store
from components.serve.config import RolloutLimits
from components.serve.rollout_plan import TakenBack
from tests.benchmarks.serve_demo import DemoTiers, DemoVersions
from tests.benchmarks.serve_figures import say
from tests.serving import BalancedLoad, Server, wait_until
from tests.spoiled import publish_spoiled

_SHARES = (0.1, 0.5, 1.0)


def lost(load: BalancedLoad) -> int:
    """Requests that were not answered, or wrongly."""
    for outcome, count in load.outcomes.items():
        if outcome != "right":
            print(f"{count} times: {outcome}", file=sys.stderr)
    return load.outcomes.total() - load.outcomes["right"]


def replace(server: Server, load: BalancedLoad) -> None:
    """Tell a server to stop, and start it again when it has ended."""
    load.wait_for(50)
    if code := server.stop(signal.SIGTERM):
        raise SystemExit(f"error: {server.tier}: ended with {code} after SIGTERM, not 0")
    load.wait_for(50)
    server.start()
    server.wait_ready()
    wait_until(lambda: server in load.ready or server.tier == "embedding", server)
    load.wait_for(50)


def stops(tiers: DemoTiers) -> None:
    """SIGTERM to each server in turn, as an update of a Deployment does."""
    with tiers.load() as load:
        for server in tiers.servers.values():
            replace(server, load)
    say("serve.sigterm.answers", load.outcomes["right"], 0)
    say("serve.sigterm.lost", lost(load), 0)


def kill_replica(tiers: DemoTiers) -> None:
    """SIGKILL to one of two embedding servers."""
    with tiers.load() as load:
        load.wait_for(100)
        tiers.tables[0].kill()
        load.wait_for(300)
        tiers.tables[0].start()
        tiers.tables[0].wait_ready()
        load.wait_for(100)
    say("serve.kill_replica.answers", load.outcomes["right"], 0)
    say("serve.kill_replica.lost", lost(load), 0)


def rollback(tiers: DemoTiers) -> None:
    """A version that predicts half of what it should, rolled out with the limits that are the default."""
    versions = tiers.versions
    spoiled = publish_spoiled(versions.store, versions.old, "shifted")
    versions.owed.expected[spoiled] = [values * 0.5 for values in versions.owed.expected[versions.old]]
    with tiers.load() as load:
        load.wait_for(100)
        try:
            # Rollouts say each step, which is no figure.
            with redirect_stdout(sys.stderr):
                tiers.rollout(shares=_SHARES, limits=RolloutLimits()).to(spoiled)
            raise SystemExit("error: the bad version was not taken back")
        except TakenBack as reason:
            print(reason, file=sys.stderr)
        load.wait_for(100)
    assert known_deployment(versions.store, "local") == Deployment(current=versions.old)
    first, last = load.answered[spoiled]
    say("serve.rollback.seconds", last - first, 1)
    say("serve.rollback.bad_answers", load.versions[spoiled], 0)
    say("serve.rollback.bad_answers_share", load.versions[spoiled] / load.outcomes.total())
    say("serve.rollback.lost", lost(load), 0)


def main(demo_uri: str) -> None:
    """Run all of it on one set of servers."""
    with tempfile.TemporaryDirectory() as folder:
        versions = DemoVersions.copied(Store(demo_uri), f"{folder}/store")
        with versions.served() as tiers:
            stops(tiers)
            kill_replica(tiers)
            rollback(tiers)


if __name__ == "__main__":
    main(sys.argv[1])
