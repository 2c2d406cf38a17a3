"""`afterclick demo`: real logs to a published, gated model, and the life of three arms."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from cli.command import DEMO_STORE, ConfigOption, DebugOption, StoreOption, clear_errors, console, say
from cli.display import ledger_table, summary_lines
from cli.due_runs import run_due
from components.common.layout import Store
from components.common.releases import DAILY

DEMO_CONFIG = "complete_journey"


@clear_errors
def demo(
    store: StoreOption = DEMO_STORE,
    days: Annotated[int, typer.Option(min=1, help="Days of daily training after the batch.")] = 10,
    config: ConfigOption = DEMO_CONFIG,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="With a candidate whose tables are pretrained on all purchases.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Real logs to a published, gated model: one batch run, then one run per day; a third arm comes half way.

    A second call goes on where the first one stopped, and does nothing twice.
    """
    started = time.monotonic()
    if pretrained:
        config = "complete_journey_pretrained"
        store = f"{DEMO_STORE}-pretrained" if store == DEMO_STORE else store
    elif config == DEMO_CONFIG:
        if len(Store(store).finished_days(DAILY)) < days // 2:
            run_due(config, store, None, days // 2)
        config = f"{DEMO_CONFIG}_fal"
        say(f"from here on by the configuration {config}: one arm more")
    of_a_day = run_due(config, store, None, days)
    console.print(ledger_table(store))
    say(*summary_lines(store, "demo"))
    if of_a_day is not None:
        say(f"demo.daily_seconds: {of_a_day:.0f}")
    say(f"demo.seconds: {time.monotonic() - started:.0f}")
