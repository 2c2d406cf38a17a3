"""The `afterclick serve` commands; `python -m cli.serve` needs nothing but `requirements/serve.lock`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Annotated

import typer

from cli.command import DEMO_STORE, DebugOption, StoreOption, clear_errors, say
from components.common.errors import InputError
from components.common.layout import Store
from components.common.releases import EXPERIMENT_CHANNEL, PRODUCTION_CHANNEL, known_pointer
from components.serve.config import (
    EMBEDDING_GRPC_PORT,
    EMBEDDING_HTTP_PORT,
    RANKER_GRPC_PORT,
    RANKER_HTTP_PORT,
    EmbeddingTierConfig,
    RankerTierConfig,
)

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Serve a published version in two tiers.")

DeploymentOption = Annotated[
    str, typer.Option(help="Whose versions to serve; its record is STORE/deployments/NAME.json.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Another setting, NAME=VALUE; components/serve/config.py lists them."),
]
_LOCAL_EMBEDDING, _LOCAL_RANKER = f"localhost:{EMBEDDING_GRPC_PORT}", f"localhost:{RANKER_GRPC_PORT}"
_STOP_SECONDS = 20


def _settings(chosen: list[str] | None, option: str = "--set") -> dict[str, str]:
    pairs = [text.partition("=") for text in chosen or []]
    wrong = [name for name, sign, _ in pairs if not sign]
    if wrong:
        raise InputError(f"{option} {wrong[0]}: expected name=value")
    return {name: value for name, _, value in pairs}


@app.command()
@clear_errors
def embedding(
    store: StoreOption = DEMO_STORE,
    deployment: DeploymentOption = "local",
    grpc_port: Annotated[int, typer.Option(help="Of the Open Inference Protocol.")] = EMBEDDING_GRPC_PORT,
    http_port: Annotated[int, typer.Option(help="Of /live, /ready and /metrics.")] = EMBEDDING_HTTP_PORT,
    setting: SetOption = None,
    debug: DebugOption = False,
) -> None:
    """Serve embedding tables: one process of the embedding tier."""
    from components.serve.embedding_server import serve

    values = {"store_uri": store, "deployment": deployment, "grpc_port": grpc_port, "http_port": http_port}
    serve(EmbeddingTierConfig.parse(values | _settings(setting), "settings"))


@app.command()
@clear_errors
def ranker(
    store: StoreOption = DEMO_STORE,
    deployment: DeploymentOption = "local",
    embedding_address: Annotated[
        str, typer.Option(help="host:port of the embedding tier; '' holds the tables in this process.")
    ] = _LOCAL_EMBEDDING,
    grpc_port: Annotated[int, typer.Option(help="Of the Open Inference Protocol.")] = RANKER_GRPC_PORT,
    http_port: Annotated[int, typer.Option(help="Of REST, /v2/models/ranker/ready and /metrics.")] = RANKER_HTTP_PORT,
    setting: SetOption = None,
    debug: DebugOption = False,
) -> None:
    """Serve rankers: one process of the ranker tier."""
    import components.serve.protocol  # noqa: F401  (KServe must first be imported through it)
    from components.serve.ranker_server import serve

    values = {"store_uri": store, "deployment": deployment, "grpc_port": grpc_port, "http_port": http_port}
    values["embedding_address"] = embedding_address
    serve(RankerTierConfig.parse(values | _settings(setting), "settings"))


@app.command()
@clear_errors
def local(
    store: StoreOption = DEMO_STORE,
    deployment: DeploymentOption = "local",
    grpc_port: Annotated[int, typer.Option(help="Of the ranker.")] = RANKER_GRPC_PORT,
    http_port: Annotated[int, typer.Option(help="Of the ranker.")] = RANKER_HTTP_PORT,
    embedding_grpc_port: Annotated[int, typer.Option(help="Of the embedding tier.")] = EMBEDDING_GRPC_PORT,
    embedding_http_port: Annotated[int, typer.Option(help="Of the embedding tier.")] = EMBEDDING_HTTP_PORT,
    debug: DebugOption = False,
) -> None:
    """Serve both tiers on this machine, one process each, until Ctrl-C."""
    from components.common.deployments import open_deployment

    version = open_deployment(Store(store), deployment).current
    # Nobody sends requests elsewhere when these stop.
    common = ["--store", store, "--deployment", deployment, "--set", "unready_seconds=0"]
    tables, address = _ports(embedding_grpc_port, embedding_http_port), f"localhost:{embedding_grpc_port}"
    commands = (
        ["embedding", *common, *tables],
        ["ranker", *common, *_ports(grpc_port, http_port), "--embedding-address", address],
    )
    # Threads that wait for work must not keep the other tier's cores busy.
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    # Ctrl-C is for this process, which tells them to stop.
    processes = [
        subprocess.Popen([sys.executable, "-m", "cli.serve", *command], env=environment, start_new_session=True)
        for command in commands
    ]
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        _wait_ready(f"localhost:{grpc_port}", processes)
        say(f"serve.version: {version}", f"serve.ranker: localhost:{grpc_port}", f"serve.embedding: {address}")
        while all(process.poll() is None for process in processes):
            time.sleep(0.2)
    finally:
        # The ranker first: its last requests need tables.
        codes = [_stop(process) for process in reversed(processes)]
    raise InputError(f"a server ended by itself, with {codes}; its last line says why")


def _wait_ready(ranker: str, processes: list[subprocess.Popen[bytes]]) -> None:
    """Until the ranker is ready, or a process has ended."""
    import grpc

    from components.serve.protocol import RANKER_MODEL, pb, pb_grpc

    with grpc.insecure_channel(ranker) as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        while all(process.poll() is None for process in processes):
            try:
                if stub.ModelReady(pb.ModelReadyRequest(name=RANKER_MODEL), timeout=1).ready:
                    return
            except grpc.RpcError:
                pass
            time.sleep(0.1)


def _stop(process: subprocess.Popen[bytes]) -> int:
    try:
        process.terminate()
        return process.wait(_STOP_SECONDS)
    except (subprocess.TimeoutExpired, SystemExit):
        process.kill()
        return process.wait()


def _ports(grpc_port: int, http_port: int) -> list[str]:
    return ["--grpc-port", str(grpc_port), "--http-port", str(http_port)]


@app.command()
@clear_errors
def rollout(
    to: Annotated[str, typer.Option(help="CURRENT, EXPERIMENT, or the beginning of a version's digest.")] = "CURRENT",
    store: StoreOption = DEMO_STORE,
    deployment: DeploymentOption = "local",
    embedding_servers: Annotated[
        str, typer.Option(help="host:port of each server of the embedding tier, with commas; '' for none.")
    ] = _LOCAL_EMBEDDING,
    ranker_servers: Annotated[str, typer.Option(help="Likewise of the ranker tier.")] = _LOCAL_RANKER,
    shares: Annotated[str, typer.Option(help="Of users that the new version gets, rising to 1.")] = "0.1,1",
    hold_seconds: Annotated[float, typer.Option(min=0, help="How long each share stays.")] = 5.0,
    step_seconds: Annotated[float, typer.Option(min=0, help="How long the servers may take to follow a step.")] = 600.0,
    shadow_share: Annotated[
        float, typer.Option(min=0, max=1, help="Of requests that the new version scores as well, for comparison.")
    ] = 0.0,
    limit: Annotated[
        list[str] | None,
        typer.Option("--limit", help="Of how much worse the new version may be, NAME=VALUE (docs/rollouts.md)."),
    ] = None,
    watch: Annotated[bool, typer.Option(help="Take the new version back when it passes a limit.")] = True,
    again: Annotated[bool, typer.Option("--again", help="Also a version that was taken back before.")] = False,
    back: Annotated[bool, typer.Option("--back", help="Take the rollout that is under way back.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Only say where the deployment is.")] = False,
    debug: DebugOption = False,
) -> None:
    """Move running servers to another version: load it, route users to it, retire the one before.

    Called again after a stop, it goes on; users can be taken back (--back) until the version before is retired, which
    follows the last share after --hold-seconds. A version that passes a limit is taken back by itself.
    """
    from components.serve.config import RolloutLimits
    from components.serve.rollout import Rollout
    from components.serve.rollout_plan import RolloutPlan

    opened = Store(store)
    if not status:
        try:
            steps = tuple(float(share) for share in shares.split(","))
        except ValueError as error:
            raise InputError(f"--shares {shares}: expected numbers such as 0.1,0.5,1") from error
        # Somebody looks on: what nobody asks is not waited for.
        values = {"few_requests": "go_on", "wait_seconds": 0} | _settings(limit, "--limit")
        limits = RolloutLimits.parse(values, "--limit") if watch else None
        servers = (_addresses(embedding_servers), _addresses(ranker_servers))
        plan = RolloutPlan(*servers, steps, hold_seconds, step_seconds, shadow_share, limits)
        rolled = Rollout(opened, deployment, plan)
        rolled.back() if back else rolled.to(find_version(opened, to), again)
    _say_where(opened, deployment)


@app.command()
@clear_errors
def rollback(
    store: StoreOption = DEMO_STORE,
    deployment: DeploymentOption = "local",
    embedding_servers: Annotated[
        str, typer.Option(help="host:port of each server of the embedding tier, with commas; '' for none.")
    ] = _LOCAL_EMBEDDING,
    ranker_servers: Annotated[str, typer.Option(help="Likewise of the ranker tier.")] = _LOCAL_RANKER,
    step_seconds: Annotated[float, typer.Option(min=0, help="How long the servers may take to follow a step.")] = 600.0,
    reason: Annotated[str, typer.Option(help="Kept in the store, and shown.")] = "by hand",
    debug: DebugOption = False,
) -> None:
    """Have the version before answer all users, whether a rollout is under way or over.

    The version that goes is not rolled out again by itself.
    """
    from components.serve.rollout import Rollout
    from components.serve.rollout_plan import RolloutPlan

    servers = (_addresses(embedding_servers), _addresses(ranker_servers))
    Rollout(Store(store), deployment, RolloutPlan(*servers, step_seconds=step_seconds)).undo(reason)
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


if __name__ == "__main__":
    app()
