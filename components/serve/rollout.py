"""Moves a deployment from one version to another in three phases, without a request that fails or mixes versions.

Every step writes the deployment's record first, and then has the servers follow it. Servers that are killed start from
the same record; a rollout that is killed goes on from it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc

from components.common.deployments import Deployment, known_deployment, write_deployment
from components.common.errors import InputError
from components.common.layout import Store
from components.common.progress import log_line
from components.serve.credentials import ClientCredentials
from components.serve.protocol import RANKER_MODEL, TABLES_MODEL, pb, pb_grpc
from components.version.version import Version

_PAUSE_SECONDS, _SAY_SECONDS, _LIVE_SECONDS = 0.2, 5.0, 10.0


@dataclass(frozen=True)
class RolloutPlan:
    """How a rollout goes.

    Attributes:
        embedding_addresses: `host:port` of each server of the embedding tier; none if rankers hold tables themselves.
        ranker_addresses: Of each server of the ranker tier.
        shares: Of users that the new version gets, one after the other; the last is 1.
        hold_seconds: How long each share stays before the next.
        step_seconds: How long the servers may take to follow one step, restarts included.
        credentials: What the servers must show, and are shown.
    """

    embedding_addresses: tuple[str, ...]
    ranker_addresses: tuple[str, ...]
    shares: tuple[float, ...] = (1.0,)
    hold_seconds: float = 0.0
    step_seconds: float = 600.0
    credentials: ClientCredentials = ClientCredentials()

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


def step_back(now: Deployment) -> Deployment:
    """The record of the step before this one; from the old version alone answering on, the new one goes."""
    if now.phase == "routing":
        return Deployment(current=now.current, other=now.other, phase="tables")
    if now.phase == "retiring":
        return Deployment(current=now.current)
    return Deployment(current=now.current, other=now.other, phase="retiring")


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
    """The record of the first step back: all users to the version before, while both are loaded.

    Raises:
        InputError: If no rollout is under way, or the version before is already going.
    """
    if now.phase == "steady":
        raise InputError(
            f"no rollout is under way: {now.current[:12]} answers all users; roll out to the version before"
        )
    if now.phase == "retiring":
        raise InputError(f"{now.other[:12]} is already going; finish, and then roll out to it")
    return step_back(now)


class Rollout:
    """One deployment's servers and record."""

    def __init__(self, store: Store, name: str, plan: RolloutPlan) -> None:
        """Move a deployment of a store along a plan."""
        self._store, self._name, self._plan = store, name, plan

    def to(self, target: str) -> Deployment:
        """Roll out a version, or go on with its rollout.

        Raises:
            InputError: If it is not published, another rollout is under way, or a server is not there or does not
                follow in time.
        """
        Version.published(self._store, target)
        first = begin(known_deployment(self._store, self._name), target)
        return self._finish(self.steps(first))

    def back(self) -> Deployment:
        """Take the rollout that is under way back.

        Raises:
            InputError: If none is under way, the version before is already going or damaged, or a server does not
                follow.
        """
        now = known_deployment(self._store, self._name)
        first = back(now)
        # Servers that are restarted will need its files.
        Version.published(self._store, now.current).onnx()
        return self._finish(self.steps(first, step_back))

    def _finish(self, steps: Iterator[Deployment]) -> Deployment:
        for step in steps:
            log_line("rollout", describe(step))
        return step

    def steps(
        self, first: Deployment, step_on: Callable[[Deployment], Deployment] | None = None
    ) -> Iterator[Deployment]:
        """From a record to the steady one at the end, each when the servers follow it.

        Args:
            first: The record of the first step.
            step_on: From one step to the next; forward when not given.

        Raises:
            InputError: If a server is not there, before anything changes; or does not follow; or something else writes
                the record.
        """
        step_on = step_on or (lambda step: next_step(step, self._plan.shares))
        for address in (*self._plan.embedding_addresses, *self._plan.ranker_addresses):
            _Server(address, self._plan.credentials).check_open(min(self._plan.step_seconds, _LIVE_SECONDS))
        step, known = first, known_deployment(self._store, self._name)
        while True:
            if known_deployment(self._store, self._name) != known:
                raise InputError(
                    f"{self._store.deployment(self._name)}: another rollout writes it; this one stops here, --status "
                    "says where the deployment is"
                )
            known = write_deployment(self._store, self._name, step)
            self._follow(step)
            yield step
            if step.phase == "steady":
                return
            if step.phase == "routing":
                time.sleep(self._plan.hold_seconds)
            step = step_on(step)

    def _follow(self, step: Deployment) -> None:
        """Have the servers follow the record: tables come before the rankers that ask them, and go after them."""
        tables = [(address, TABLES_MODEL, step.tables) for address in self._plan.embedding_addresses]
        rankers = [(address, RANKER_MODEL, step.rankers) for address in self._plan.ranker_addresses]
        for address, tier, versions in rankers + tables if step.phase == "steady" else tables + rankers:
            server = _Server(address, self._plan.credentials)
            server.load(self._name, self._plan.step_seconds)
            server.check_versions(tier, (step.current,) if step.phase == "retiring" else versions)


class _Server:
    """One server of either tier."""

    def __init__(self, address: str, credentials: ClientCredentials) -> None:
        self._address, self._credentials = address, credentials

    @contextmanager
    def _stub(self) -> Iterator[pb_grpc.GRPCInferenceServiceStub]:
        with self._credentials.channel(self._address) as channel:
            yield pb_grpc.GRPCInferenceServiceStub(channel)

    def check_open(self, seconds: float) -> None:
        """Whether it answers, and would follow: no deployment has this name, so the call changes nothing."""
        nothing = pb.RepositoryModelLoadRequest(model_name="")
        with self._stub() as stub:
            try:
                stub.ServerLive(pb.ServerLiveRequest(), timeout=seconds, wait_for_ready=True)
            except grpc.RpcError as error:
                raise InputError(
                    f"{self._address}: no server answers ({error.code().name}); nothing has changed. Start it, or name "
                    "the servers' gRPC addresses with --ranker-servers and --embedding-servers"
                ) from error
            try:
                stub.RepositoryModelLoad(nothing, timeout=seconds, metadata=self._credentials.metadata())
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                    raise InputError(f"{self._address}: {error.details()}; nothing has changed") from error

    def load(self, deployment: str, seconds: float) -> None:
        """Ask it until it follows; one that is being restarted is waited for."""
        deadline, said_at = time.monotonic() + seconds, time.monotonic()
        request = pb.RepositoryModelLoadRequest(model_name=deployment)
        with self._stub() as stub:
            while True:
                left = deadline - time.monotonic()
                try:
                    stub.RepositoryModelLoad(request, timeout=max(left, 0.001), metadata=self._credentials.metadata())
                    return
                except grpc.RpcError as error:
                    reason = f"{self._address}: {error.code().name}: {error.details()}"
                    if error.code() != grpc.StatusCode.UNAVAILABLE or left < _PAUSE_SECONDS:
                        raise InputError(
                            f"{reason}; the rollout stands still: the same command goes on, --back takes it back"
                        ) from error
                if time.monotonic() > said_at + _SAY_SECONDS:
                    said_at = time.monotonic()
                    log_line("rollout", f"waiting for {reason}")
                time.sleep(_PAUSE_SECONDS)

    def check_versions(self, tier: str, versions: tuple[str, ...]) -> None:
        """Whether it holds what the record says; if not, it reads another record."""
        with self._stub() as stub:
            for version in versions:
                names = {"name": TABLES_MODEL, "version": version} if tier == TABLES_MODEL else {"name": version}
                try:
                    held = stub.ModelReady(pb.ModelReadyRequest(**names), timeout=_LIVE_SECONDS).ready
                except grpc.RpcError:
                    held = False
                if not held:
                    raise InputError(
                        f"{self._address}: does not hold version {version[:12]}, though it followed the deployment's "
                        "record; does it read the same store? Run the rollout again if it was just restarted"
                    )


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
