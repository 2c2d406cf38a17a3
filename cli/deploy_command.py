"""`afterclick deploy`: the pipelines and their schedule in Kubeflow."""

from __future__ import annotations

import contextlib
import os
import warnings
from typing import Annotated

import typer

from cli.command import ConfigOption, DebugOption, StoreOption, clear_errors, say


@clear_errors
def deploy(
    config: ConfigOption,
    store: StoreOption,
    host: Annotated[
        str,
        typer.Option(
            envvar="KF_PIPELINES_ENDPOINT",
            help="Kubeflow Pipelines' API server; if not given, this cluster's, or that of kubectl's context.",
        ),
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    debug: DebugOption = False,
) -> None:
    """Install the pipelines in Kubeflow, schedule daily training, and start the batch; a second call changes nothing.

    The section `cluster` of the configuration says where, and what pods get.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pipelines.config import load_config
        from pipelines.deploy import Deployment

        loaded = load_config(config)
        # The client prints addresses of its web page.
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            lines = list(Deployment.connect(host, loaded, store, dry_run).install())
    for line in lines:
        say(f"would be: {line}" if dry_run else line)
