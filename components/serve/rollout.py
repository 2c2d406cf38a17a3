"""Moves a deployment from one version to another in three phases, without a request that fails or mixes versions.

Every step writes the deployment's record first, and then has the servers follow it. Servers that are killed start from
the same record; a rollout that is killed goes on from it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import grpc
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as pb_grpc

from components.common.errors import InputError
from components.common.layout import VERSION_KIND, Store
from components.common.manifests import read_manifest
from components.common.progress import log_line
from components.serve.deployment import Deployment, open_deployment, write_deployment

_TABLES, _RANKER = "tables", "ranker"
_PAUSE_SECONDS = 0.2


@dataclass(frozen=True)
class RolloutPlan:
    """How a rollout goes.

    Attributes:
        embedding_addresses: `host:port` of each server of the embedding tier; none if rankers hold tables themselves.
        ranker_addresses: Of each server of the ranker tier.
        shares: Of users that the new version gets, one after the other; the last is 1.
        hold_seconds: How long each share stays before the next.
        step_seconds: How long the servers may take to follow one step, restarts included.
    """

    embedding_addresses: tuple[str, ...]
    ranker_addresses: tuple[str, ...]
    shares: tuple[float, ...] = (1.0,)
    hold_seconds: float = 0.0
    step_seconds: float = 600.0

    def __post_init__(self) -> None:
        ordered = all(a < b for a, b in zip(self.shares, self.shares[1:], strict=False))
        if not self.shares or self.shares[-1] != 1.0 or not ordered or self.shares[0] <= 0:
            raise InputError(f"shares {list(self.shares)}: must rise from above 0 to 1, e.g. 0.1,0.5,1")


def next_step(now: Deployment, shares: tuple[float, ...]) -> Deployment:
    """The record of the step after this one; that of a steady deployment is itself."""
    if now.phase == "ranker":
        return now.model_copy(update={"phase": "tables"})
    if now.phase in ("tables", "routing") and now.share < 1.0:
        share = next(share for share in shares if share > now.share)
        return now.model_copy(update={"phase": "routing", "share": share})
    if now.phase == "routing":
        return Deployment(current=now.other, other=now.current, phase="retiring")
    return Deployment(current=now.current)


def begin(now: Deployment, target: str) -> Deployment:
    """The record of the first step to a version, or of the step where a rollout to it was interrupted.

    Raises:
        InputError: If a rollout to another version is under way.
    """
    if now.phase == "steady":
        return now if target == now.current else Deployment(current=now.current, other=target, phase="ranker")
    going_to = now.current if now.phase == "retiring" else now.other
    if target != going_to:
        raise InputError(
            f"a rollout to {going_to[:12]} is in phase {now.phase}; finish it or roll it back before one to "
            f"{target[:12]}"
        )
    return now


def back(now: Deployment) -> Deployment:
    """The record that takes a rollout back: all users to the version before, and the new one goes.

    Raises:
        InputError: If the version before is already going.
    """
    if now.phase == "retiring":
        raise InputError(f"{now.other[:12]} is already going; finish, and then roll out to it")
    return now if now.phase == "steady" else Deployment(current=now.current, other=now.other, phase="retiring")


class Rollout:
    """One deployment's servers and record."""

    def __init__(self, store: Store, name: str, plan: RolloutPlan) -> None:
        """Of a deployment of a store."""
        self._store, self._name, self._plan = store, name, plan

    def to(self, target: str) -> Deployment:
        """Roll out a version, or go on with its rollout.

        Raises:
            InputError: If it is not published, another rollout is under way, or a server does not follow in time.
        """
        read_manifest(self._store.version(target), VERSION_KIND)
        return self._finish(begin(open_deployment(self._store, self._name), target))

    def back(self) -> Deployment:
        """Take the rollout that is under way back.

        Raises:
            InputError: If there is nothing to take back to, or a server does not follow in time.
        """
        return self._finish(back(open_deployment(self._store, self._name)))

    def _finish(self, first: Deployment) -> Deployment:
        for step in self.steps(first):
            log_line("rollout", describe(step))
        return step

    def steps(self, first: Deployment) -> Iterator[Deployment]:
        """From a record to the steady one at the end, each when the servers follow it."""
        step = first
        while True:
            write_deployment(self._store, self._name, step)
            self._follow(step)
            yield step
            if step.phase == "steady":
                return
            if step.phase == "routing":
                time.sleep(self._plan.hold_seconds)
            step = next_step(step, self._plan.shares)

    def _follow(self, step: Deployment) -> None:
        """Have the servers follow the record: tables come before the rankers that ask them, and go after them."""
        tables = [(address, _TABLES) for address in self._plan.embedding_addresses]
        rankers = [(address, _RANKER) for address in self._plan.ranker_addresses]
        of_phase = {"retiring": rankers, "steady": rankers + tables}
        for address, model in of_phase.get(step.phase, tables + rankers):
            self._load(address, model)

    def _load(self, address: str, model: str) -> None:
        """Ask one server until it follows; one that is being restarted is waited for."""
        deadline = time.monotonic() + self._plan.step_seconds
        with grpc.insecure_channel(address) as channel:
            stub = pb_grpc.GRPCInferenceServiceStub(channel)
            while True:
                left = deadline - time.monotonic()
                try:
                    stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name=model), timeout=max(left, 0.001))
                    return
                except grpc.RpcError as error:
                    if error.code() != grpc.StatusCode.UNAVAILABLE or left < _PAUSE_SECONDS:
                        raise InputError(
                            f"{address}: {error.code().name}: {error.details()}; the rollout stands still in this "
                            "phase: run it again to go on, or roll it back"
                        ) from error
                time.sleep(_PAUSE_SECONDS)


def describe(step: Deployment) -> str:
    """One line of where a deployment is."""
    current, other = step.current[:12], step.other[:12]
    return {
        "steady": f"steady: {current} answers all users",
        "ranker": f"ranker: that of {other} is loaded beside {current}",
        "tables": f"tables: those of {other} are loaded and warm",
        "routing": f"routing: {other} answers {step.share:.0%} of the users",
        "retiring": f"retiring: {other} has no requests left",
    }[step.phase]
