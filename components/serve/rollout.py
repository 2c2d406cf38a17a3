"""Moves a deployment from one version to another in three phases, without a request that fails or mixes versions.

Every step writes the deployment's record first, and then has the servers follow it. Servers that are killed start from
the same record; a rollout that is killed goes on from it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

from components.common import storage
from components.common.deployments import Deployment, known_deployment, write_deployment
from components.common.errors import InputError
from components.common.layout import Store
from components.common.progress import log_line
from components.common.records import write_record
from components.common.rollouts import (
    Replaced,
    RolledBack,
    find_replaced,
    find_rolled_back,
    replaced_uri,
    rolled_back_uri,
)
from components.serve.protocol import RANKER_MODEL, TABLES_MODEL
from components.serve.rollout_figures import Counted, Samples, read_samples
from components.serve.rollout_plan import RolloutPlan, TakenBack
from components.serve.rollout_servers import LIVE_SECONDS, RolloutServer, servers_at
from components.serve.rollout_steps import back, begin, describe, next_step, step_back
from components.serve.rollout_watch import hold
from components.version.version import Version


class Rollout:
    """One deployment's servers and record."""

    def __init__(self, store: Store, name: str, plan: RolloutPlan) -> None:
        """Move a deployment of a store along a plan."""
        self._store, self._name, self._plan = store, name, plan
        self._taken_back: RolledBack | None = None
        self.figures: dict[str, float] = {}

    def to(self, target: str, again: bool = False) -> Deployment:
        """Roll out a version, or go on with its rollout, or with taking it back.

        Args:
            target: Its digest.
            again: Whether it may have been taken back before.

        Raises:
            TakenBack: If it passes the plan's limits, or was taken back before for a fault of its own.
            InputError: If it is not published, another rollout is under way, or a server is not there or does not
                follow in time.
        """
        Version.published(self._store, target)
        self._taken_back, now = None, known_deployment(self._store, self._name)
        record = find_rolled_back(self._store, self._name, target)
        if record is not None and not again:
            if now.other == target:
                self._go_back(now)
                raise TakenBack(record)
            if record.is_fault and now.current != target:
                raise TakenBack(record, "; --again tries it all the same")
        first = begin(now, target)
        if record is not None:
            storage.remove(rolled_back_uri(self._store, self._name, target))
        finished = self._finish(self.steps(first))
        if self._taken_back is not None:
            raise TakenBack(self._taken_back)
        return finished

    def back(self, reason: str = "by hand") -> Deployment:
        """Take the rollout that is under way back, and write down why.

        Raises:
            InputError: If none is under way, the version before is already going or damaged, or a server does not
                follow.
        """
        now = known_deployment(self._store, self._name)
        back(now)
        # Servers that are restarted will need its files.
        Version.published(self._store, now.current).onnx()
        self._write_down(now.other, now.current, (reason,))
        return self._go_back(now)

    def undo(self, reason: str = "by hand") -> Deployment:
        """Have the version before answer all users at once, whether a rollout is under way or over; again, it goes on.

        Raises:
            InputError: If there is no version before, or as `back` and `to` say.
        """
        now = known_deployment(self._store, self._name)
        record = find_rolled_back(self._store, self._name, now.current)
        if now.phase == "retiring":
            is_undone = find_rolled_back(self._store, self._name, now.other) is not None
            steady = self._finish(self.steps(now))
            return steady if is_undone else self.undo(reason)
        if now.phase != "steady" and record is None:
            return self.back(reason)
        replaced = find_replaced(self._store, self._name)
        if replaced is None or replaced.by != now.current:
            raise InputError(
                f"{self._name}: {now.current[:12]} answers, and no version is known that answered before it; name one "
                "with `afterclick rollout --to`"
            )
        # What is known to be good is not watched, nor shared out.
        self._plan = replace(self._plan, shares=(1.0,), hold_seconds=0.0, shadow_share=0.0, limits=None)
        if record is None:
            if (earlier := find_rolled_back(self._store, self._name, replaced.version)) is not None:
                raise TakenBack(earlier, "; it is the version before, name another with `afterclick rollout --to`")
            self._write_down(now.current, replaced.version, (reason,))
        return self.to(replaced.version)

    def _go_back(self, now: Deployment) -> Deployment:
        return self._finish(self.steps(now if now.phase == "retiring" else back(now), step_back))

    def _write_down(self, version: str, kept: str, reasons: tuple[str, ...], is_fault: bool = True) -> RolledBack:
        limits = self._plan.limits.model_dump(mode="json") if self._plan.limits else {}
        record = RolledBack(
            version=version,
            kept=kept,
            at=datetime.now(UTC),
            reasons=reasons,
            is_fault=is_fault,
            figures=self.figures,
            limits=limits,
        )
        write_record(rolled_back_uri(self._store, self._name, version), record)
        log_line("rollout", str(record))
        return record

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
            step_on: From one step to the next; when not given forward, or back once the plan's limits are passed.

        Raises:
            InputError: If a server is not there, before anything changes; or does not follow; or something else writes
                the record.
        """
        for address in servers_at(self._plan.embedding_addresses + self._plan.ranker_addresses):
            self._server(address).check_open(min(self._plan.step_seconds, LIVE_SECONDS))
        if step_on is None and self._plan.limits is not None:
            # Whoever does not say where they are is named before anything changes.
            self._metrics_urls()
        step, known = first, known_deployment(self._store, self._name)
        while True:
            if known_deployment(self._store, self._name) != known:
                raise InputError(
                    f"{self._store.deployment(self._name)}: another rollout writes it; this one stops here, --status "
                    "says where the deployment is"
                )
            if step_on is None and step.phase == "retiring":
                replaced = Replaced(version=step.other, by=step.current)
                write_record(replaced_uri(self._store, self._name), replaced)
            known = write_deployment(self._store, self._name, step)
            self._follow(step)
            yield step
            if step.phase == "steady":
                return
            if step_on is None and not self._holds(step):
                step, step_on = back(step), step_back
            elif step_on is None:
                step = next_step(step, self._plan.shares, self._plan.shadow_share)
            else:
                step = step_on(step)

    def _holds(self, step: Deployment) -> bool:
        """Let a step stay, and see whether the new version is within the limits; if not, its record says why."""
        if step.phase != "routing" and not step.shadow_share:
            return True
        limits = self._plan.limits
        if limits is None:
            time.sleep(self._plan.hold_seconds)
            return True
        verdict = hold(step, Counted(self._metrics_urls(), self._read), self._plan.hold_seconds, limits)
        self.figures = verdict.figures
        if verdict.reasons:
            self._taken_back = self._write_down(step.other, step.current, verdict.reasons, verdict.is_fault)
        return not verdict.reasons

    def _metrics_urls(self) -> list[str]:
        return [self._server(address).metrics_url() for address in servers_at(self._plan.ranker_addresses)]

    def _read(self, url: str) -> Samples:
        return read_samples(url, self._plan.credentials.https_context())

    def _server(self, address: str) -> RolloutServer:
        return RolloutServer(address, self._plan.credentials)

    def _follow(self, step: Deployment) -> None:
        """Have the servers follow the record: tables come before the rankers that ask them, and go after them."""
        tables = (self._plan.embedding_addresses, TABLES_MODEL, step.tables)
        rankers = (self._plan.ranker_addresses, RANKER_MODEL, step.rankers)
        for addresses, tier, versions in (rankers, tables) if step.phase == "steady" else (tables, rankers):
            held, asked = (step.current,) if step.phase == "retiring" else versions, set[str]()
            # Those that came meanwhile may have read the record before.
            while new := [one for one in servers_at(addresses, self._plan.step_seconds) if one not in asked]:
                for server in map(self._server, new):
                    if server.load(self._name, self._plan.step_seconds, addresses):
                        server.check_versions(tier, held)
                asked.update(new)
