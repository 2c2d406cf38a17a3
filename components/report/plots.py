"""The page's figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from components.common.arms import arm_of
from components.common.ledger import LOGISTIC_REGRESSION, SERVED, LedgerRow
from components.common.trials import Trial
from components.features.examples import LABELS
from components.features.objectives import OBJECTIVE_NAMES
from components.report.facts import DayVolume

_PALETTE = ("#4c6a92", "#d1703c", "#7b5ea7", "#b08d2e", "#2f8fa3", "#a8547a", "#6b8e23", "#8b6355")
_OF_OTHERS = {SERVED: "#3d8f6f", LOGISTIC_REGRESSION: "#a3a3a3"}
_LABEL_COLORS = ("#4c6a92", "#7fa1c7", "#d1703c", "#a8322d")


@dataclass(frozen=True)
class ArmColors:
    """One color for each arm on a page, in their order."""

    arms: Sequence[str]

    def of(self, model: str) -> str:
        """Of an arm, of any start of it, or of what is no arm."""
        if model in _OF_OTHERS:
            return _OF_OTHERS[model]
        arm = arm_of(model)
        return _PALETTE[self.arms.index(arm) % len(_PALETTE)] if arm in self.arms else "#a3a3a3"

    @property
    def all(self) -> dict[str, str]:
        """Of the arms and of the others, by name."""
        return {name: self.of(name) for name in (*self.arms, *_OF_OTHERS)}


def _title(name: str) -> str:
    return name.replace("_", " ")


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
        trace = go.Scatter(x=[v.day for v in labelled], y=density, name=_title(label), line={"color": color})
        figure.add_trace(trace, row=2, col=1)
    figure.update_yaxes(title_text="rows", row=1, col=1)
    figure.update_yaxes(title_text="share positive", tickformat=".1%", row=2, col=1)
    return style(figure, 560)


def loss_figure(curves: dict[str, list[dict]], tests: dict[str, list[dict]], colors: ArmColors) -> go.Figure:
    """Loss of every objective by model, training and test; dotted lines separate the checkpoints of the first."""
    titles = [_title(name) for name in OBJECTIVE_NAMES]
    figure = make_subplots(rows=2, cols=3, subplot_titles=titles, vertical_spacing=0.16, horizontal_spacing=0.06)
    for number, name in enumerate(OBJECTIVE_NAMES):
        row, column = number // 3 + 1, number % 3 + 1
        for arm, points in curves.items():
            trace = go.Scatter(
                x=[point["step"] for point in points],
                y=[point[name] for point in points],
                customdata=[point["through"] for point in points],
                hovertemplate="%{y:.4f} (%{customdata})",
                name=_title(arm),
                line={"color": colors.of(arm), "width": 1.5},
                showlegend=number == 0,
            )
            figure.add_trace(trace, row=row, col=column)
        for arm, points in tests.items():
            trace = go.Scatter(
                x=[point["step"] for point in points],
                y=[point[name] for point in points],
                customdata=[point["epoch"] + 1 for point in points],
                hovertemplate="%{y:.4f} (test, epoch %{customdata})",
                name=f"{_title(arm)}, test",
                mode="lines+markers",
                line={"color": colors.of(arm), "width": 1, "dash": "dash"},
                showlegend=number == 0,
            )
            figure.add_trace(trace, row=row, col=column)
    ends = _last_steps(next(iter(curves.values()), []))[:-1]
    figure.update_layout(shapes=[_line_at(step, panel) for panel in range(len(OBJECTIVE_NAMES)) for step in ends])
    figure.update_xaxes(title_text="step", row=2)
    figure.update_yaxes(title_text="loss, nats", col=1)
    return style(figure, 620)


def _line_at(step: int, panel: int) -> dict:
    """A dotted line over the height of a panel; `add_vline` would copy all lines so far for each."""
    axis = str(panel + 1) if panel else ""
    line = {"color": "#bbbbbb", "dash": "dot", "width": 1}
    place = {"xref": f"x{axis}", "yref": f"y{axis} domain"}
    return {"type": "line", "x0": step, "x1": step, "y0": 0, "y1": 1, "line": line, **place}


def _last_steps(points: list[dict]) -> list[int]:
    last: dict[str, int] = {}
    for point in points:
        last[point["through"]] = point["step"]
    return list(last.values())


def ledger_figure(ledger: Sequence[LedgerRow], served: tuple[str, ...], colors: ArmColors) -> go.Figure:
    """AUC on each unseen day, by served objective and arm."""
    figure = make_subplots(rows=1, cols=len(served), subplot_titles=[_title(name) for name in served])
    for column, name in enumerate(served, start=1):
        for arm, color in colors.all.items():
            rows = [row for row in ledger if row.arm == arm and name in row.scores]
            trace = go.Scatter(
                x=[row.event_date for row in rows],
                y=[row.scores[name].auc for row in rows],
                name=_title(arm),
                mode="lines+markers",
                line={"color": color, "dash": "dot" if arm in (SERVED, LOGISTIC_REGRESSION) else "solid"},
                showlegend=column == 1,
            )
            figure.add_trace(trace, row=1, col=column)
    figure.update_yaxes(tickformat=".3f")
    figure.update_yaxes(title_text="AUC", col=1)
    figure.update_xaxes(tickformat="%b %d", dtick=86_400_000)
    return style(figure, 420)


def trial_figure(trial: Trial, threshold: float, colors: ArmColors) -> go.Figure:
    """Cumulative AUC gain of a trial after each scored day, and what it takes at every look."""
    figure = go.Figure()
    judged = [(len(verdict.days), verdict.gain) for verdict in trial.verdicts if verdict.gain is not None]
    days, gains = [number for number, _ in judged], [gain for _, gain in judged]
    color = colors.of(trial.candidate)
    if all(gain.low is not None and gain.high is not None for gain in gains):
        outline = [*(gain.high for gain in gains), *(gain.low for gain in reversed(gains))]
        band = go.Scatter(
            x=[*days, *reversed(days)],
            y=outline,
            fill="toself",
            fillcolor=color,
            opacity=0.15,
            line={"width": 0},
            name="95% interval",
            hoverinfo="skip",
        )
        figure.add_trace(band)
    line = {"color": color, "width": 3}
    percents = [gain.percent for gain in gains]
    figure.add_trace(go.Scatter(x=days, y=percents, mode="lines+markers", name="gain", line=line))
    boundary = trial.newest.boundary if trial.newest else ()
    if boundary:
        # The first looks of a long trial take gains that nothing has: they would flatten all the rest.
        top = 3 * max(boundary[-1], *(abs(percent) for percent in percents))
        looks = [(day, gain) for day, gain in zip(trial.looks, boundary, strict=True) if gain <= top]
        for sign, name, shade in ((1, "surely better from here", "#3d8f6f"), (-1, "surely worse from here", "#a8322d")):
            figure.add_trace(
                go.Scatter(
                    x=[day for day, _ in looks],
                    y=[sign * gain for _, gain in looks],
                    mode="lines+markers",
                    name=name,
                    marker={"symbol": "diamond", "size": 9},
                    line={"color": shade, "dash": "dash"},
                )
            )
    figure.add_hline(
        y=threshold,
        line={"color": "#5b6673", "width": 1},
        annotation_text=f"threshold {threshold:+.2f}%",
        annotation_position="bottom left",
    )
    figure.update_yaxes(title_text="cumulative AUC gain", ticksuffix="%")
    figure.update_xaxes(title_text="scored days of the trial", range=[0, trial.looks[-1] + 1])
    return style(figure, 420)


def calibration_figure(ledger: Sequence[LedgerRow], served: tuple[str, ...], colors: ArmColors) -> go.Figure:
    """Share of positives in each tenth of the predictions, over the days of the page, by served objective and arm."""
    figure = make_subplots(rows=1, cols=len(served), subplot_titles=[_title(name) for name in served])
    for column, name in enumerate(served, start=1):
        largest = 0.0
        for arm in (*colors.arms, SERVED):
            scores = [row.scores[name] for row in ledger if row.arm == arm and name in row.scores]
            tenths = [*zip(*(score.deciles for score in scores if score.deciles), strict=False)]
            rows = [sum(one.rows for one in tenth) for tenth in tenths]
            predicted = [
                sum(one.mean_prediction * one.rows for one in tenth) / number
                for tenth, number in zip(tenths, rows, strict=True)
            ]
            observed = [
                sum(one.positives for one in tenth) / number for tenth, number in zip(tenths, rows, strict=True)
            ]
            largest = max([largest, *predicted, *observed])
            trace = go.Scatter(
                x=predicted,
                y=observed,
                name=_title(arm),
                mode="lines+markers",
                line={"color": colors.of(arm)},
                showlegend=column == 1,
            )
            figure.add_trace(trace, row=1, col=column)
        exact = go.Scatter(
            x=[0, largest], y=[0, largest], mode="lines", line={"color": "#bbbbbb", "dash": "dot"}, showlegend=False
        )
        figure.add_trace(exact, row=1, col=column)
    figure.update_xaxes(title_text="mean prediction", tickformat=".1%")
    figure.update_yaxes(title_text="share positive", tickformat=".1%", col=1)
    return style(figure, 420).update_layout(hovermode="closest")
