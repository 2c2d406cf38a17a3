"""Writes the gate's verdict of one day."""

from __future__ import annotations

from datetime import date

from components.common.arms import find_failure
from components.common.config import ResolvedConfig
from components.common.layout import Store
from components.common.ledger import ARMS, read_ledger
from components.common.progress import log_line
from components.common.records import write_record
from components.common.releases import Blessing, read_blessing, read_pointer, read_publication
from components.gate.config import GateConfig
from components.gate.release_rules import decide_release, inputs_digest


def judge_day(store_uri: str, config: GateConfig, pipeline: str, event_date: date) -> Blessing:
    """Decide what a pipeline's run of a day may publish.

    A verdict stands once its run has published, and while ledger and thresholds are the same: asked again after its
    model was published, the gate must not judge that model against itself.
    """
    store = Store(store_uri)
    rows = read_ledger(store, through=event_date)
    blessing = read_blessing(store, pipeline, event_date)
    published = read_publication(store, pipeline, event_date) is not None
    if blessing is None or not (published or blessing.ledger_digest == inputs_digest(rows, config)):
        failures = {failure.arm: failure for arm in ARMS if (failure := find_failure(store, arm)) is not None}
        blessing = decide_release(pipeline, rows, event_date, read_pointer(store), config, failures)
        write_record(store.blessing(pipeline, event_date), blessing)
    log_line("gate", f"{event_date}: {'blessed' if blessing.blessed else 'not blessed'}: {'; '.join(blessing.reasons)}")
    for release in blessing.releases:
        log_line("gate", f"{event_date}: {release.action} of {release.arm}: {'; '.join(release.reasons)}")
    for reason in blessing.withheld:
        log_line("gate", f"{event_date}: withheld: {reason}")
    return blessing


def main(store_uri: str, config_uri: str, pipeline: str, event_date: str) -> Blessing:
    """`judge_day` under a run's configuration."""
    config = ResolvedConfig.open(config_uri).section(GateConfig, "gate")
    return judge_day(store_uri, config, pipeline, date.fromisoformat(event_date))
