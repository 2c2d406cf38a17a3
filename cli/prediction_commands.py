"""Commands that ask a published version, and make requests to ask it with."""

from __future__ import annotations

import json
from enum import StrEnum
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
    console,
)
from components.common.days import parse_day
from components.common.errors import InputError


class Channel(StrEnum):
    """Where versions are published."""

    CURRENT = "CURRENT"
    EXPERIMENT = "EXPERIMENT"


@clear_errors
def predict(
    examples: Annotated[
        str,
        typer.Argument(
            help="Parquet file of examples, as in STORE/examples/evaluation; its newest if not given. With --server, a "
            "request's JSON file."
        ),
    ] = "",
    store: StoreOption = DEMO_STORE,
    channel: Annotated[
        Channel, typer.Option(help="Production, or a blessed candidate under `gate.on_blessing: experiment`.")
    ] = Channel.CURRENT,
    limit: Annotated[int, typer.Option(min=1, help="Rows.")] = 10,
    server: Annotated[str, typer.Option(help="Ask this ranker server, host:port of gRPC, with raw features.")] = "",
    version: Annotated[str, typer.Option(help="With --server: the digest to ask; else the one routed to.")] = "",
    ca: CaOption = "",
    certificate: CertificateOption = "",
    key: KeyOption = "",
    server_name: ServerNameOption = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
    debug: DebugOption = False,
) -> None:
    """Predict with the published version: in this process from examples, or by a server from raw features.

    afterclick request > request.json && afterclick predict --server localhost:8081 request.json
    """
    from cli.inspection import ask_server, predict_rows

    if not server and examples.endswith(".json"):
        raise InputError(f"{examples}: a request in JSON needs --server; without one, give examples in Parquet")
    if server:
        from components.serve.client_connection import Connection

        connection = Connection(ca=ca, certificate=certificate, key=key, server_name=server_name)
        answered, rows = ask_server(server, examples, version, limit, connection)
    else:
        answered, rows = predict_rows(store, examples, channel.value, limit)
    if as_json:
        for row in rows:
            print(json.dumps({"version": answered, **row}))
        return
    from cli.display import predictions_table

    console.print(predictions_table(answered, rows))


@clear_errors
def request(
    store: StoreOption = DEMO_STORE,
    day: Annotated[str, typer.Option(help="Of the logs; the newest scored one if not given.")] = "",
    rank: Annotated[int, typer.Option(min=0, help="0 for the moment with the most candidates, 1 for the next.")] = 0,
    rest: Annotated[bool, typer.Option("--rest", help="As the body of a REST request instead.")] = False,
    debug: DebugOption = False,
) -> None:
    """Print a request for servers as JSON: a moment of the logs, with the user's actions before it."""
    from cli.logged_requests import logged_request
    from components.serve.tensors import request_tensors, rest_body

    made = logged_request(store, parse_day(day, "--day") if day else None, rank)
    print(json.dumps(rest_body(request_tensors(made)) if rest else made, indent=1))
