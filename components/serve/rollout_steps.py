"""The steps of a rollout: from one record of a deployment to the next, forward and back."""

from __future__ import annotations

from components.common.deployments import Deployment
from components.common.errors import InputError


def next_step(now: Deployment, shares: tuple[float, ...], shadow_share: float = 0.0) -> Deployment:
    """The record of the step after this one; that of a steady deployment is itself."""
    if now.phase == "ranker":
        return now.model_copy(update={"phase": "tables", "shadow_share": shadow_share})
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


def describe(step: Deployment) -> str:
    """One line of where a deployment is."""
    current, other = step.current[:12], step.other[:12]
    shadow = f", and scores {step.shadow_share:.0%} of the other requests in shadow" if step.shadow_share else ""
    return {
        "steady": f"steady: {current} answers all users",
        "ranker": f"ranker: that of {other} is loaded beside {current}",
        "tables": f"tables: those of {other} are loaded and warm{shadow}",
        "routing": f"routing: {other} answers {step.share:.0%} of the users{shadow}",
        "retiring": f"retiring: {other} has no requests left",
    }[step.phase]
