"""Rollouts of one version after another under load: nothing may be lost, and no server may grow; one figure a line.

Two servers of each tier serve copies of two of the demo's versions in turn, each with a digest of its own. Memory (RSS)
and open handles are read after each rollout, when one version is held. The command fails if a request is lost or
answered wrongly, or a server grows by more than the limits.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, field

import numpy as np
import psutil

from components.common import storage
from components.common.deployments import Deployment, known_deployment
from components.common.layout import Store
from components.serve.config import RolloutLimits
from tests.benchmarks.serve_demo import DemoTiers, DemoVersions
from tests.benchmarks.serve_figures import say
from tests.serving import BalancedLoad, Server
from tests.spoiled import publish_twin

# Of the rollouts, before the first figures: libraries load, and allocators take what they keep.
WARM_UP = 0.2
MAX_GROWTH = {"rss_megabytes": 15.0, "handles": 8.0, "metrics_lines": 100.0}
# On a small machine; the two models differ much.
LIMITS = RolloutLimits(min_requests=20, wait_seconds=120, max_mean_change=1.0, max_slowdown=10.0)


@dataclass
class Growth:
    """What one server takes, rollout by rollout: memory, open handles, lines of its metrics."""

    name: str
    process: psutil.Process
    http_port: int
    samples: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in MAX_GROWTH})

    @classmethod
    def of(cls, name: str, server: Server) -> Growth:
        """Of a server that runs."""
        assert server.process is not None
        return cls(name, psutil.Process(server.process.pid), server.http_port)

    def sample(self) -> None:
        """Read all of it, of its children as well."""
        family = [self.process, *self.process.children(recursive=True)]
        with urllib.request.urlopen(f"http://localhost:{self.http_port}/metrics", timeout=10) as answer:
            metrics_lines = answer.read().count(b"\n")
        self.samples["rss_megabytes"].append(sum(one.memory_info().rss for one in family) / 2**20)
        self.samples["handles"].append(sum(one.num_fds() for one in family))
        self.samples["metrics_lines"].append(metrics_lines)

    def __str__(self) -> str:
        return f"{self.name} " + " ".join(f"{values[-1]:.1f}" for values in self.samples.values())

    def report(self) -> Iterator[str]:
        """Print figures; yields what grew too much, by a straight line through all samples after the warm-up."""
        for what, values in self.samples.items():
            kept = values[round(len(values) * WARM_UP) :]
            for moment, value in (("start", kept[0]), ("middle", kept[len(kept) // 2]), ("end", kept[-1])):
                say(f"serve.soak.{self.name}.{what}_{moment}", value, 1)
            slope = float(np.polyfit(range(len(kept)), kept, 1)[0])
            say(f"serve.soak.{self.name}.{what}_per_rollout", slope)
            grown = slope * (len(kept) - 1)
            if grown > MAX_GROWTH[what]:
                yield f"{self.name}: {what} grew by {grown:.1f}, above {MAX_GROWTH[what]:g}"


def roll(tiers: DemoTiers, load: BalancedLoad, num_rollouts: int, seconds: float) -> list[Growth]:
    """Roll out one copy after the other, evenly spread over the time; returns what each server took."""
    versions, grown = tiers.versions, [Growth.of(name, server) for name, server in tiers.servers.items()]
    begun, gone = time.monotonic(), ["", ""]
    for number in range(num_rollouts):
        time.sleep(max(0.0, begun + number * seconds / num_rollouts - time.monotonic()))
        source = (versions.new, versions.old)[number % 2]
        twin = publish_twin(versions.store, source, f"copy {number}")
        versions.owed.expected[twin] = versions.owed.expected[source]
        tiers.rollout(shares=(0.5, 1.0), shadow_share=0.2, limits=LIMITS).to(twin)
        assert known_deployment(versions.store, "local") == Deployment(current=twin)
        # The version before stays, as retention has it.
        if gone[0]:
            storage.remove(versions.store.version(gone[0]))
        gone = [gone[1], twin]
        for growth in grown:
            growth.sample()
        print(
            f"{number + 1}: {load.outcomes.total()} answers, {', '.join(map(str, grown))}", file=sys.stderr, flush=True
        )
    return grown


def main(demo_uri: str, num_rollouts: int, minutes: float) -> None:
    """Soak, and say whether anything was lost, wrong or grew.

    Raises:
        SystemExit: If so, naming each of them.
    """
    with tempfile.TemporaryDirectory() as folder:
        versions = DemoVersions.copied(Store(demo_uri), f"{folder}/store")
        # Rollouts say each step, which is no figure.
        with redirect_stdout(sys.stderr), versions.served() as tiers, tiers.load() as load:
            load.wait_for(100)
            started = time.monotonic()
            grown = roll(tiers, load, num_rollouts, minutes * 60)
            seconds = time.monotonic() - started
    lost = {outcome: count for outcome, count in load.outcomes.items() if outcome not in ("right", "mismatch")}
    say("serve.soak.rollouts", num_rollouts, 0)
    say("serve.soak.minutes", seconds / 60, 1)
    say("serve.soak.versions_that_answered", len(load.versions) - ("" in load.versions), 0)
    say("serve.soak.answers", load.outcomes["right"], 0)
    say("serve.soak.lost", sum(lost.values()), 0)
    say("serve.soak.wrong", load.outcomes["mismatch"], 0)
    faults = [f"{count} requests lost: {outcome}" for outcome, count in lost.items()]
    faults += [f"{load.outcomes['mismatch']} wrong answers"] if load.outcomes["mismatch"] else []
    for growth in grown:
        faults += growth.report()
    if faults:
        raise SystemExit("\n".join(f"error: {fault}" for fault in faults))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Versions rolled out under load, and what servers take meanwhile.")
    parser.add_argument("store", help="the demo's, with two published versions or more")
    parser.add_argument("--rollouts", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=10.0)
    given = parser.parse_args()
    main(given.store, given.rollouts, given.minutes)
