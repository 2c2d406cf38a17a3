"""Brings a deployment's servers to the version in production, at the end of a run."""

from __future__ import annotations

from datetime import date

import grpc

from components.common.config import ResolvedConfig
from components.common.deployments import known_deployment
from components.common.errors import InputError
from components.common.layout import Store
from components.common.progress import log_line
from components.common.records import write_record
from components.common.releases import known_pointer
from components.common.rollouts import Result, RolloutOutcome, find_rolled_back, rollout_uri
from components.serve.config import ServingConfig
from components.serve.credentials import ClientCredentials
from components.serve.rollout import Rollout
from components.serve.rollout_plan import RolloutPlan, TakenBack


def main(store_uri: str, config_uri: str, pipeline: str, event_date: str) -> RolloutOutcome:
    """Roll out what is in production as the section `serving` says, and write down how it ended.

    A run is finished whether its rollout is or not: what failed is said, and tried again by the next run.
    """
    store, config = Store(store_uri), ResolvedConfig.open(config_uri).section(ServingConfig, "serving")
    outcome = roll_out(store, config)
    write_record(rollout_uri(store, pipeline, date.fromisoformat(event_date)), outcome)
    alarm = "" if outcome.result == "serving" else "ALARM: "
    log_line("rollout", f"{event_date}: {alarm}{outcome}")
    return outcome


def roll_out(store: Store, config: ServingConfig) -> RolloutOutcome:
    """Roll out the version in production; one that was taken back by the same limits is left alone."""
    version = ""

    def ended(result: Result, figures: dict[str, float], *reasons: str) -> RolloutOutcome:
        return RolloutOutcome(
            deployment=config.deployment, version=version, result=result, reasons=reasons, figures=figures
        )

    try:
        rollout = Rollout(store, config.deployment, _plan(config))
        version = known_pointer(store).version
        rollout.to(version, again=_has_other_limits(store, config, version))
    except TakenBack as error:
        return ended("rolled_back", error.record.figures, str(error.record))
    except (InputError, OSError, grpc.RpcError) as error:
        return ended("failed", {}, " ".join(str(error).split()))
    return ended("serving", rollout.figures)


def _plan(config: ServingConfig) -> RolloutPlan:
    """The plan of a configuration.

    Raises:
        InputError: If its files of certificates do not fit each other.
    """
    return RolloutPlan(
        embedding_addresses=config.embedding_servers,
        ranker_addresses=config.ranker_servers,
        shares=config.shares,
        hold_seconds=config.hold_seconds,
        step_seconds=config.step_seconds,
        shadow_share=config.shadow_share,
        limits=config.limits,
        credentials=ClientCredentials(config.ca, config.certificate, config.key, config.token, config.server_name),
    )


def _has_other_limits(store: Store, config: ServingConfig, version: str) -> bool:
    """Whether a version was taken back by limits that were changed since, and nothing of it is under way."""
    record = find_rolled_back(store, config.deployment, version)
    if record is None or not record.limits or known_deployment(store, config.deployment).phase != "steady":
        return False
    return record.limits != config.limits.model_dump(mode="json")
