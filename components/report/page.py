"""The page itself."""

from __future__ import annotations

from collections import Counter

import jinja2
import plotly.graph_objects as go

from components.common.ledger import ARMS, LOGISTIC_REGRESSION, SERVED, LedgerRow
from components.common.releases import ALARM_DAYS
from components.features.examples import LABELS
from components.features.objectives import OBJECTIVE_NAMES
from components.report.facts import ReportFacts
from components.report.plots import gain_figure, ledger_figure, loss_figure, volumes_figure

_FIGURE_CONFIG = {"responsive": True, "displayModeBar": False}
_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("components.report", "templates"), autoescape=True, undefined=jinja2.StrictUndefined
)


def render(facts: ReportFacts, script: str) -> str:
    """The page as HTML; `script` is the element with what draws the figures."""
    figures = {
        "volumes": volumes_figure(facts.volumes),
        "losses": loss_figure(facts.curves, facts.tests),
        "ledger": ledger_figure(facts.ledger, facts.blessing.served),
        "gain": gain_figure(facts.history or [facts.blessing], facts.blessing),
    }
    quarantined: Counter[str] = Counter()
    for volume in facts.volumes:
        quarantined.update(volume.quarantined)
    return _ENVIRONMENT.get_template("report.html.jinja").render(
        facts=facts,
        threshold=facts.blessing.min_gain_percent,
        script=script,
        figures={name: _embed(figure, name) for name, figure in figures.items()},
        served_objectives=facts.blessing.served,
        objectives=OBJECTIVE_NAMES,
        ledger_rows=_ledger_rows(facts.ledger),
        mean_aucs=_mean_aucs(facts.ledger, facts.blessing.served),
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


def _ledger_rows(ledger: list[LedgerRow]) -> list[LedgerRow]:
    order = {arm: number for number, arm in enumerate((*ARMS, SERVED, LOGISTIC_REGRESSION))}
    return sorted(ledger, key=lambda row: (row.event_date, order.get(row.arm, 9)))


def _mean_aucs(ledger: list[LedgerRow], served: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Mean AUC over the days on which every arm has one, by arm and served objective."""
    means: dict[str, dict[str, float]] = {}
    for arm in (*ARMS, LOGISTIC_REGRESSION):
        for name in served:
            aucs = [r.scores[name].auc for r in ledger if r.arm == arm and name in r.scores]
            known = [auc for auc in aucs if auc is not None]
            if known:
                means.setdefault(arm, {})[name] = sum(known) / len(known)
    return means
