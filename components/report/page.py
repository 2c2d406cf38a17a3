"""The page itself."""

from __future__ import annotations

from collections import Counter

import jinja2
import plotly.graph_objects as go

from components.common.arms import arm_of, ordered
from components.common.ledger import LOGISTIC_REGRESSION, LedgerRow
from components.common.releases import ALARM_DAYS, MIN_GAIN_PERCENT
from components.features.examples import LABELS
from components.features.objectives import OBJECTIVE_NAMES
from components.report.facts import ReportFacts
from components.report.plots import (
    ArmColors,
    calibration_figure,
    ledger_figure,
    loss_figure,
    trial_figure,
    volumes_figure,
)
from components.report.trial_tables import slice_rows, start_rows

_FIGURE_CONFIG = {"responsive": True, "displayModeBar": False}
_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("components.report", "templates"), autoescape=True, undefined=jinja2.StrictUndefined
)


def render(facts: ReportFacts, script: str) -> str:
    """The page as HTML; `script` is the element with what draws the figures."""
    colors, served = ArmColors(facts.arms), facts.blessing.served
    figures = {
        "volumes": volumes_figure(facts.volumes),
        "losses": loss_figure(facts.curves, facts.tests, colors),
        "ledger": ledger_figure(facts.ledger, served, colors),
        "calibration": calibration_figure(facts.ledger, served, colors),
    }
    judged = {verdict.trial for verdict in facts.blessing.verdicts}
    shown = [trial for trial in facts.trials if trial.name in judged]
    threshold = float(facts.blessing.thresholds.get("min_gain_percent", MIN_GAIN_PERCENT))
    for number, trial in enumerate(shown):
        figures[f"trial-{number}"] = trial_figure(trial, threshold, colors)
    quarantined: Counter[str] = Counter()
    for volume in facts.volumes:
        quarantined.update(volume.quarantined)
    return _ENVIRONMENT.get_template("report.html.jinja").render(
        facts=facts,
        threshold=threshold,
        trials=shown,
        past_trials=[trial for trial in facts.trials if trial.name not in judged],
        starts={trial.name: start_rows(trial, facts.ledger, served) for trial in shown},
        slices={trial.name: slice_rows(trial, facts.ledger, served) for trial in shown},
        script=script,
        figures={name: _embed(figure, name) for name, figure in figures.items()},
        served_objectives=facts.blessing.served,
        objectives=OBJECTIVE_NAMES,
        ledger_rows=_ledger_rows(facts.ledger, facts.arms),
        unknown_ids=_unknown_ids(facts.ledger, facts.arms),
        exact_tables=list(dict.fromkeys(table for row in facts.ledger for table in row.unknown_ids)),
        mean_aucs=_mean_aucs(facts.ledger, facts.arms, facts.blessing.served),
        quarantined=quarantined,
        labels=LABELS,
        withheld=(*facts.blessing.withheld, *(facts.publication.withheld if facts.publication else ())),
        alarm_days=ALARM_DAYS,
        moved=[(volume.day, volume.moved) for volume in facts.volumes if volume.moved],
        warnings=[(volume.day, text) for volume in facts.volumes for text in volume.warnings],
        days_with_examples=[volume.day for volume in facts.volumes if volume.labels],
    )


def _embed(figure: go.Figure, name: str) -> str:
    return figure.to_html(
        include_plotlyjs=False,
        full_html=False,
        div_id=f"figure-{name}",
        config=_FIGURE_CONFIG,
    )


def _ledger_rows(ledger: list[LedgerRow], arms: list[str]) -> list[LedgerRow]:
    names = ordered([row.arm for row in ledger], arms)
    return sorted(ledger, key=lambda row: (row.event_date, names.index(row.arm)))


def _unknown_ids(ledger: list[LedgerRow], arms: list[str]) -> list[LedgerRow]:
    """The rows of the page's last day whose models have exact ids, and those of production on the days before."""
    last = max((row.event_date for row in ledger), default=None)
    rows = [row for row in _ledger_rows(ledger, arms) if row.unknown_ids and row.arm in arms]
    return [row for row in rows if row.event_date == last or row.arm == arms[0]]


def _mean_aucs(ledger: list[LedgerRow], arms: list[str], served: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Mean AUC over the days of the page and the starts of an arm, by arm and served objective."""
    means: dict[str, dict[str, float]] = {}
    for arm in (*arms, LOGISTIC_REGRESSION):
        for name in served:
            aucs = [r.scores[name].auc for r in ledger if arm_of(r.arm) == arm and name in r.scores]
            known = [auc for auc in aucs if auc is not None]
            if known:
                means.setdefault(arm, {})[name] = sum(known) / len(known)
    return means
