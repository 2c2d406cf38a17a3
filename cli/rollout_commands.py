"""Commands that move running servers from version to version, and back."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.command import (
    DEMO_STORE,
    CaOption,
    CertificateOption,
    DebugOption,
    KeyOption,
    ServerNameOption,
    StoreOption,
    clear_errors,
    say,
    settings_of,
)
from components.common.errors import InputError
from components.common.layout import Store
from components.common.releases import EXPERIMENT_CHANNEL, PRODUCTION_CHANNEL, known_pointer
from components.serve.config import EMBEDDING_GRPC_PORT, RANKER_GRPC_PORT

DeploymentOption = Annotated[
    str, typer.Option(help="Whose versions to serve; its record is STORE/deployments/NAME.json.")
]
EmbeddingServersOption = Annotated[
    str,
    typer.Option(
        help="host:port of each server of the embedding tier, with commas, or dns:host:port of all that a name stands "
        "for; '' for none."
    ),
]
RankerServersOption = Annotated[str, typer.Option(help="Likewise of the ranker tier.")]
StepSecondsOption = Annotated[float, typer.Option(min=0, help="How long the servers may take to follow a step.")]
TokenOption = Annotated[str, typer.Option(help="File of the servers' control token.")]
LOCAL_EMBEDDING, LOCAL_RANKER = f"localhost:{EMBEDDING_GRPC_PORT}", f"localhost:{RANKER_GRPC_PORT}"


@clear_errors
def rollout(
    to: Annotated[str, typer.Option(help="CURRENT, EXPERIMENT, or the beginning of a version's digest.")] = "CURRENT",
    store: StoreOption = DEMO_STORE,
    deployment: DeploymentOption = "local",
    embedding_servers: EmbeddingServersOption = LOCAL_EMBEDDING,
    ranker_servers: RankerServersOption = LOCAL_RANKER,
    shares: Annotated[str, typer.Option(help="Of users that the new version gets, rising to 1.")] = "0.1,1",
    hold_seconds: Annotated[float, typer.Option(min=0, help="How long each share stays.")] = 5.0,
    step_seconds: StepSecondsOption = 600.0,
    shadow_share: Annotated[
        float, typer.Option(min=0, max=1, help="Of requests that the new version scores as well, for comparison.")
    ] = 0.0,
    limit: Annotated[
        list[str] | None,
        typer.Option("--limit", help="Of how much worse the new version may be, NAME=VALUE (docs/rollouts.md)."),
    ] = None,
    watch: Annotated[bool, typer.Option(help="Take the new version back when it passes a limit.")] = True,
    again: Annotated[bool, typer.Option("--again", help="Also a version that was taken back before.")] = False,
    ca: CaOption = "",
    certificate: CertificateOption = "",
    key: KeyOption = "",
    token: TokenOption = "",
    server_name: ServerNameOption = "",
    back: Annotated[bool, typer.Option("--back", help="Take the rollout that is under way back.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Only say where the deployment is.")] = False,
    debug: DebugOption = False,
) -> None:
    """Move running servers to another version: load it, route users to it, retire the one before.

    Called again after a stop, it goes on; users can be taken back (--back) until the version before is retired, which
    follows the last share after --hold-seconds. A version that passes a limit is taken back by itself.
    """
    from components.serve.config import RolloutLimits
    from components.serve.credentials import ClientCredentials
    from components.serve.rollout import Rollout
    from components.serve.rollout_plan import RolloutPlan

    opened = Store(store)
    if not status:
        try:
            steps = tuple(float(share) for share in shares.split(","))
        except ValueError as error:
            raise InputError(f"--shares {shares}: expected numbers such as 0.1,0.5,1") from error
        # Somebody looks on: what nobody asks is not waited for.
        values = {"few_requests": "go_on", "wait_seconds": 0} | settings_of(limit, "--limit")
        limits = RolloutLimits.parse(values, "--limit") if watch else None
        servers = (_addresses(embedding_servers), _addresses(ranker_servers))
        shown = ClientCredentials(ca, certificate, key, token, server_name)
        plan = RolloutPlan(*servers, steps, hold_seconds, step_seconds, shadow_share, limits, shown)
        rolled = Rollout(opened, deployment, plan)
        rolled.back() if back else rolled.to(find_version(opened, to), again)
    _say_where(opened, deployment)


@clear_errors
def rollback(
    store: StoreOption = DEMO_STORE,
    deployment: DeploymentOption = "local",
    embedding_servers: EmbeddingServersOption = LOCAL_EMBEDDING,
    ranker_servers: RankerServersOption = LOCAL_RANKER,
    step_seconds: StepSecondsOption = 600.0,
    reason: Annotated[str, typer.Option(help="Kept in the store, and shown.")] = "by hand",
    ca: CaOption = "",
    certificate: CertificateOption = "",
    key: KeyOption = "",
    token: TokenOption = "",
    server_name: ServerNameOption = "",
    debug: DebugOption = False,
) -> None:
    """Have the version before answer all users, whether a rollout is under way or over.

    The version that goes is not rolled out again by itself.
    """
    from components.serve.credentials import ClientCredentials
    from components.serve.rollout import Rollout
    from components.serve.rollout_plan import RolloutPlan

    servers = (_addresses(embedding_servers), _addresses(ranker_servers))
    shown = ClientCredentials(ca, certificate, key, token, server_name)
    Rollout(Store(store), deployment, RolloutPlan(*servers, step_seconds=step_seconds, credentials=shown)).undo(reason)
    _say_where(Store(store), deployment)


def _say_where(store: Store, deployment: str) -> None:
    from components.common.deployments import known_deployment
    from components.common.rollouts import find_replaced, rolled_back_in
    from components.serve.rollout_steps import describe

    now, replaced = known_deployment(store, deployment), find_replaced(store, deployment)
    say(f"rollout.phase: {describe(now)}", f"rollout.version: {now.current}")
    if replaced is not None and replaced.by == now.current:
        say(f"rollout.version_before: {replaced.version}")
    for record in rolled_back_in(store, deployment):
        say(f"rollout.rolled_back: {record}")


def _addresses(text: str) -> tuple[str, ...]:
    return tuple(address.strip() for address in text.split(",") if address.strip())


def find_version(store: Store, name: str) -> str:
    """The digest that a channel points to, or that begins with a text.

    Raises:
        InputError: If there is none, or there are several.
    """
    if name in (PRODUCTION_CHANNEL, EXPERIMENT_CHANNEL):
        return known_pointer(store, name).version
    matching = [digest for digest in store.versions() if digest.startswith(name)]
    if len(matching) != 1:
        raise InputError(f"--to {name}: {len(matching)} of the versions {[v[:12] for v in store.versions()]} begin so")
    return matching[0]
