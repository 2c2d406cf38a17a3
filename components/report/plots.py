"""The page's figures."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from components.common.ledger import ARMS, CANDIDATE, CONTROL, LOGISTIC_REGRESSION, SERVED, LedgerRow
from components.common.releases import Blessing
from components.features.examples import LABELS
from components.features.objectives import OBJECTIVE_NAMES
from components.report.facts import DayVolume

COLORS = {
    CONTROL: "#4c6a92",
    CANDIDATE: "#d1703c",
    SERVED: "#3d8f6f",
    LOGISTIC_REGRESSION: "#a3a3a3",
}
_LABEL_COLORS = ("#4c6a92", "#7fa1c7", "#d1703c", "#a8322d")
_TITLES = {name: name.replace("_", " ") for name in (*OBJECTIVE_NAMES, *LABELS, LOGISTIC_REGRESSION, *ARMS, SERVED)}


def style(figure: go.Figure, height: int) -> go.Figure:
    """The look of every figure."""
    return figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 60, "r": 20, "t": 50, "b": 40},
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={"orientation": "h", "y": -0.14},
        hovermode="x unified",
    )


def volumes_figure(volumes: Sequence[DayVolume]) -> go.Figure:
    """Log rows per day above, label densities below."""
    figure = make_subplots(
        rows=2,
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.1,
        subplot_titles=("Clean log rows per day", "Positive labels per impression, days with examples"),
    )
    days = [volume.day for volume in volumes]
    for name, color in (("impressions", "#4c6a92"), ("actions", "#c9d6e6")):
        rows = [getattr(volume, name) for volume in volumes]
        figure.add_trace(go.Bar(x=days, y=rows, name=name, marker_color=color), row=1, col=1)
    labelled = [volume for volume in volumes if volume.labels]
    for label, color in zip(LABELS, _LABEL_COLORS, strict=True):
        density = [volume.labels[label] for volume in labelled]
        trace = go.Scatter(x=[v.day for v in labelled], y=density, name=_TITLES[label], line={"color": color})
        figure.add_trace(trace, row=2, col=1)
    figure.update_yaxes(title_text="rows", row=1, col=1)
    figure.update_yaxes(title_text="share positive", tickformat=".1%", row=2, col=1)
    return style(figure, 560)


def loss_figure(curves: dict[str, list[dict]], tests: dict[str, list[dict]]) -> go.Figure:
    """Loss of every objective by arm, training and test; dotted lines separate the checkpoints."""
    titles = [_TITLES[name] for name in OBJECTIVE_NAMES]
    figure = make_subplots(rows=2, cols=3, subplot_titles=titles, vertical_spacing=0.16, horizontal_spacing=0.06)
    for number, name in enumerate(OBJECTIVE_NAMES):
        row, column = number // 3 + 1, number % 3 + 1
        for arm, points in curves.items():
            trace = go.Scatter(
                x=[point["step"] for point in points],
                y=[point[name] for point in points],
                customdata=[point["through"] for point in points],
                hovertemplate="%{y:.4f} (%{customdata})",
                name=_TITLES[arm],
                line={"color": COLORS[arm], "width": 1.5},
                showlegend=number == 0,
            )
            figure.add_trace(trace, row=row, col=column)
        for arm, points in tests.items():
            trace = go.Scatter(
                x=[point["step"] for point in points],
                y=[point[name] for point in points],
                customdata=[point["epoch"] + 1 for point in points],
                hovertemplate="%{y:.4f} (test, epoch %{customdata})",
                name=f"{_TITLES[arm]}, test",
                mode="lines+markers",
                line={"color": COLORS[arm], "width": 1, "dash": "dash"},
                showlegend=number == 0,
            )
            figure.add_trace(trace, row=row, col=column)
        ends = _last_steps(curves.get(CONTROL, []))[:-1]
        for step in ends:
            figure.add_vline(x=step, line={"color": "#bbbbbb", "dash": "dot", "width": 1}, row=row, col=column)
    figure.update_xaxes(title_text="step", row=2)
    figure.update_yaxes(title_text="loss, nats", col=1)
    return style(figure, 620)


def _last_steps(points: list[dict]) -> list[int]:
    last: dict[str, int] = {}
    for point in points:
        last[point["through"]] = point["step"]
    return list(last.values())


def ledger_figure(ledger: Sequence[LedgerRow], served: tuple[str, ...]) -> go.Figure:
    """AUC on each unseen day, by served objective and arm."""
    figure = make_subplots(rows=1, cols=len(served), subplot_titles=[_TITLES[name] for name in served])
    for column, name in enumerate(served, start=1):
        for arm, color in COLORS.items():
            rows = [row for row in ledger if row.arm == arm and name in row.scores]
            trace = go.Scatter(
                x=[row.event_date for row in rows],
                y=[row.scores[name].auc for row in rows],
                name=_TITLES[arm],
                mode="lines+markers",
                line={"color": color, "dash": "dot" if arm in (SERVED, LOGISTIC_REGRESSION) else "solid"},
                showlegend=column == 1,
            )
            figure.add_trace(trace, row=1, col=column)
    figure.update_yaxes(tickformat=".3f")
    figure.update_yaxes(title_text="AUC", col=1)
    figure.update_xaxes(tickformat="%b %d", dtick=86_400_000)
    return style(figure, 420)


def gain_figure(history: Sequence[Blessing], newest: Blessing) -> go.Figure:
    """Cumulative AUC gain after each scored day, with its interval and the gate's threshold."""
    figure = go.Figure()
    gained = [verdict for verdict in history if verdict.gain is not None]
    days = [verdict.event_date for verdict in gained]
    gains = [verdict.gain for verdict in gained if verdict.gain is not None]
    whiskers = {
        "type": "data",
        "symmetric": False,
        "array": [gain.high - gain.percent if gain.high is not None else 0 for gain in gains],
        "arrayminus": [gain.percent - gain.low if gain.low is not None else 0 for gain in gains],
        "color": "#bbbbbb",
    }
    figure.add_trace(
        go.Scatter(
            x=days,
            y=[gain.percent for gain in gains],
            error_y=whiskers,
            mode="lines+markers",
            name="all served objectives, 95% interval",
            line={"color": COLORS[CANDIDATE], "width": 3},
        )
    )
    for name, dash in zip(newest.served, cycle(("dash", "dot", "dashdot")), strict=False):
        own = [gain.percent if (gain := verdict.gain_by_objective.get(name)) else None for verdict in gained]
        figure.add_trace(go.Scatter(x=days, y=own, name=_TITLES[name], line={"dash": dash, "color": "#7a7a7a"}))
    figure.add_hline(
        y=newest.min_gain_percent,
        line={"color": "#3d8f6f"},
        annotation_text=f"threshold {newest.min_gain_percent:+.2f}%",
        annotation_position="bottom left",
    )
    figure.update_yaxes(title_text="cumulative AUC gain", ticksuffix="%")
    figure.update_xaxes(tickformat="%b %d", dtick=86_400_000)
    return style(figure, 420)
