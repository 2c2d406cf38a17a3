"""Runs what is due, with bars and lines in a terminal."""

from __future__ import annotations

import statistics
from datetime import date, timedelta
from typing import TYPE_CHECKING

from cli.command import console
from cli.display import RunDisplay
from cli.log_commands import check_first_run
from components.common.days import parse_day, utc_today
from components.common.layout import Store
from components.common.releases import DAILY, PRETRAINING

if TYPE_CHECKING:
    from pipelines.config import RunConfig


def run_due(config_name: str, store: str, as_of: str | None, max_days: int | None) -> float | None:
    """Run what is due, say why nothing more is, and give the median seconds of the daily runs that there were.

    Raises:
        InputError: If something in the configuration or the logs stops it, or a step fails.
    """
    from pipelines.config import load_config
    from pipelines.local import run_schedule

    config = load_config(config_name)
    known_on = parse_day(as_of, "--as-of") if as_of else utc_today()
    check_first_run(config, store)
    with RunDisplay(console) as display:
        runs = run_schedule(config, store, known_on, max_days, display.begin_run, display.events)
        count = 0
        for pipeline, outcome in runs:
            count += 1
            display.end_run(pipeline, outcome)
    console.print(_rest(config, store, known_on, max_days, bool(count)), highlight=False)
    return statistics.median(display.daily_seconds) if display.daily_seconds else None


def pretrain_due(config_name: str, store: str, as_of: str | None) -> None:
    """Pretrain tables on the newest logs, unless those are there.

    Raises:
        InputError: If something in the configuration or the logs stops it, or a step fails.
    """
    from pipelines.config import load_config
    from pipelines.local import pretrain

    config = load_config(config_name)
    with RunDisplay(console) as display:
        pretrain(config, store, parse_day(as_of, "--as-of") if as_of else utc_today(), display.events)
        display.end_run(PRETRAINING, None)


def _rest(config: RunConfig, store: str, as_of: date, max_days: int | None, has_run: bool) -> str:
    """Why there is nothing more to do."""
    from components.sources.log_days import last_day

    if max_days is not None and len(Store(store).finished_days(DAILY)) >= max_days:
        return f"nothing {'more ' if has_run else ''}is due: {max_days} days of daily training are finished"
    end, dataset = last_day(config.source, config.dataset), config.dataset
    known = f"the logs end on {end}" if end < as_of else f"events are known until {as_of - timedelta(days=1)}"
    return (
        f"nothing {'more ' if has_run else ''}is due: {known}, and a day's labels are final {dataset.maturity_days} "
        "days after it"
    )
