"""The `afterclick serve` commands; `python -m cli.serve` needs nothing but `requirements/serve.lock`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Annotated

import typer

from cli.command import (
    DEMO_STORE,
    DebugOption,
    StoreOption,
    clear_errors,
    say,
    settings_of,
)
from cli.rollout_commands import LOCAL_EMBEDDING, DeploymentOption, rollback, rollout
from components.common.errors import InputError
from components.common.layout import Store
from components.common.long_lived import long_lived
from components.serve.config import (
    EMBEDDING_GRPC_PORT,
    EMBEDDING_HTTP_PORT,
    RANKER_GRPC_PORT,
    RANKER_HTTP_PORT,
    EmbeddingTierConfig,
    RankerTierConfig,
)

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Serve a published version in two tiers.")

SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Another setting, NAME=VALUE; components/serve/config.py lists them."),
]
TlsCertificateOption = Annotated[str, typer.Option(help="File of this server's certificate chain; encrypts its ports.")]
TlsKeyOption = Annotated[str, typer.Option(help="File of its key.")]
TlsClientCaOption = Annotated[str, typer.Option(help="File of the CA that clients' certificates must be of.")]
ControlTokenOption = Annotated[
    str, typer.Option(help="File of the token of calls that change what is served; without it, these are open.")
]
_STOP_SECONDS = 20


def _credentials(certificate: str, key: str, client_ca: str, token: str) -> dict[str, str]:
    return {"tls_certificate": certificate, "tls_key": key, "tls_client_ca": client_ca, "control_token": token}


@app.command()
@clear_errors
def embedding(
    store: StoreOption = DEMO_STORE,
    deployment: DeploymentOption = "local",
    grpc_port: Annotated[int, typer.Option(help="Of the Open Inference Protocol.")] = EMBEDDING_GRPC_PORT,
    http_port: Annotated[int, typer.Option(help="Of /live, /ready and /metrics.")] = EMBEDDING_HTTP_PORT,
    tls_certificate: TlsCertificateOption = "",
    tls_key: TlsKeyOption = "",
    tls_client_ca: TlsClientCaOption = "",
    control_token: ControlTokenOption = "",
    setting: SetOption = None,
    debug: DebugOption = False,
) -> None:
    """Serve embedding tables: one process of the embedding tier."""
    with long_lived():
        from components.serve.embedding_server import serve

    values = {"store_uri": store, "deployment": deployment, "grpc_port": grpc_port, "http_port": http_port}
    values |= _credentials(tls_certificate, tls_key, tls_client_ca, control_token)
    serve(EmbeddingTierConfig.parse(values | settings_of(setting), "settings"))


@app.command()
@clear_errors
def ranker(
    store: StoreOption = DEMO_STORE,
    deployment: DeploymentOption = "local",
    embedding_address: Annotated[
        str, typer.Option(help="host:port of the embedding tier; '' holds the tables in this process.")
    ] = LOCAL_EMBEDDING,
    grpc_port: Annotated[int, typer.Option(help="Of the Open Inference Protocol.")] = RANKER_GRPC_PORT,
    http_port: Annotated[int, typer.Option(help="Of REST, /v2/models/ranker/ready and /metrics.")] = RANKER_HTTP_PORT,
    tls_certificate: TlsCertificateOption = "",
    tls_key: TlsKeyOption = "",
    tls_client_ca: TlsClientCaOption = "",
    embedding_ca: Annotated[
        str, typer.Option(help="File of the CA that the embedding tier's certificates must be of; encrypts look-ups.")
    ] = "",
    control_token: ControlTokenOption = "",
    setting: SetOption = None,
    debug: DebugOption = False,
) -> None:
    """Serve rankers: one process of the ranker tier."""
    with long_lived():
        import components.serve.protocol  # noqa: F401  (KServe must first be imported through it)
        from components.serve.ranker_server import serve

    values = {"store_uri": store, "deployment": deployment, "grpc_port": grpc_port, "http_port": http_port}
    values |= {"embedding_address": embedding_address, "embedding_ca": embedding_ca}
    values |= _credentials(tls_certificate, tls_key, tls_client_ca, control_token)
    serve(RankerTierConfig.parse(values | settings_of(setting), "settings"))


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
    common += ["--set", "online_features=true"] if Store(store).online_settings() else []
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


app.command()(rollout)
app.command()(rollback)


if __name__ == "__main__":
    app()
