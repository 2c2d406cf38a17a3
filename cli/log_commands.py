"""Commands for a company's own logs: a first configuration, and what a run on it would do."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.command import ConfigOption, DebugOption, clear_errors, console, say
from components.common.errors import InputError
from components.common.layout import Store
from components.common.releases import BATCH

if TYPE_CHECKING:
    from pipelines.config import RunConfig

_MARKS = {"stops": "[red]stops[/red]  ", "warning": "[yellow]warning[/yellow]", "fact": "       "}


@clear_errors
def init(
    impressions: Annotated[str, typer.Option(help="A file, a pattern or a folder of Parquet, CSV or JSON lines.")],
    actions: Annotated[
        str, typer.Option(help="Likewise; leave it out if clicks and conversions stand in the same files.")
    ] = "",
    output: Annotated[Path, typer.Option("--output", "-o", help="The YAML file to write.")] = Path("own.yaml"),
    debug: DebugOption = False,
) -> None:
    """Look at your logs and write a first configuration, with comments, to read through and correct."""
    from cli.first_config import first_config

    if output.exists():
        raise InputError(f"{output}: is there already; name another file with --output, or move it away")
    written = first_config(impressions, actions or impressions, output.stem)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(written)
    say(f"init.config: {output}", f"read it through, then: afterclick check --config {output}")


@clear_errors
def check(config: ConfigOption, debug: DebugOption = False) -> None:
    """Say what a run on your logs would do, before anything is copied or trained: what stops it, and what to change."""
    from pipelines.config import load_config

    started = time.monotonic()
    stops = show_findings(load_config(config))
    say(f"check.stops: {stops}", f"check.seconds: {time.monotonic() - started:.1f}")
    if stops:
        raise InputError(f"{stops} of these things stop a run; change them, and check again")


def check_first_run(config: RunConfig, store: str) -> None:
    """Print what `check` says ahead of the first run on a company's own logs.

    Raises:
        InputError: If something would stop the run, before anything is copied.
    """
    if Store(store).finished_days(BATCH):
        return
    stops = show_findings(config)
    if stops:
        raise InputError(f"{stops} of these things stop the run; change them, and run again")


def show_findings(config: RunConfig) -> int:
    """Print what a run would find in its logs; returns how many things stop it. Logs that are made need no look."""
    from cli.log_check import findings
    from cli.log_facts import look_at_logs
    from cli.vector_check import vector_findings
    from components.sources.config import FilesSource, SqlSource

    if not isinstance(config.source, FilesSource | SqlSource):
        return 0
    found = [*findings(config, look_at_logs(config, config.source)), *vector_findings(config, config.source)]
    for finding in found:
        console.print(f"{_MARKS[finding.level]} ", end="", highlight=False)
        console.print(finding.text, highlight=False, markup=False, soft_wrap=True)
    return sum(finding.level == "stops" for finding in found)
