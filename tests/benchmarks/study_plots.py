"""The page of a training study."""

from __future__ import annotations

import html
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from components.features.objectives import OBJECTIVE_NAMES
from components.report.plots import style
from tests.benchmarks.study_findings import BATCH_ARMS, CURVE_ARMS, Claim, Results, mean_and_error

_COLORS = {
    "plain": "#4c6a92",
    "one_epoch": "#d1703c",
    "baseline": "#4c6a92",
    "two_epochs": "#4c6a92",
    "half_rate": "#a3a3a3",
    "fal_update": "#d1703c",
    "two_epochs_fal": "#d1703c",
    "fal_gradient": "#e0a36b",
    "meda": "#3d8f6f",
    "two_epochs_meda": "#3d8f6f",
    "meda_keep": "#8cc0a8",
}
_TITLES = {
    "one_epoch": "Sparse Optimizer",
    "half_rate": "half the tables' rate",
    "fal_update": "FAL on the update",
    "fal_gradient": "FAL on the gradient",
    "meda": "MEDA",
    "meda_keep": "MEDA, frequent rows kept",
    "two_epochs_fal": "two epochs, FAL",
    "two_epochs_meda": "two epochs, MEDA",
}
_SHOWN_FROM_EPOCH = 0.4
_STYLE = """
  body { font-family: system-ui, sans-serif; color: #1f2a37; margin: 0; background: #f6f7f9; }
  main { max-width: 1120px; margin: 0 auto; padding: 32px 24px 64px; }
  section { background: #fff; border: 1px solid #e3e7ec; border-radius: 10px; padding: 22px 24px; margin-top: 20px; }
  .note { color: #5b6673; } .good { color: #2f7d5d; } .bad { color: #a8322d; }
"""


def _title(name: str) -> str:
    return _TITLES.get(name, name.replace("_", " "))


def _add_curve(figure: go.Figure, arm: str, x: np.ndarray, values: np.ndarray, panel: tuple[int, int]) -> None:
    """A line with a band of one standard error; `values` has the shape (seeds, len(x))."""
    mean, error = mean_and_error(values)
    error = np.where(np.isfinite(error), error, 0.0)
    row, column = panel
    place = {"row": row, "col": column}
    red, green, blue = (int(_COLORS[arm][start : start + 2], 16) for start in (1, 3, 5))
    band = go.Scatter(
        x=np.concatenate([x, x[::-1]]),
        y=np.concatenate([mean + error, (mean - error)[::-1]]),
        fill="toself",
        fillcolor=f"rgba({red},{green},{blue},0.18)",
        line={"width": 0},
        hoverinfo="skip",
        legendgroup=arm,
        showlegend=False,
    )
    line = go.Scatter(
        x=x,
        y=mean,
        name=_title(arm),
        line={"color": _COLORS[arm], "width": 2},
        legendgroup=arm,
        showlegend=panel == (1, 1),
    )
    figure.add_trace(band, **place)
    figure.add_trace(line, **place)


def _panels(titles: tuple[str, ...]) -> go.Figure:
    return make_subplots(
        rows=-(-len(titles) // 3),
        cols=min(len(titles), 3),
        subplot_titles=[_title(title) for title in titles],
        vertical_spacing=0.12,
        horizontal_spacing=0.06,
    )


def training_figure(results: Results) -> go.Figure:
    """Figure 3: training loss of the first epoch."""
    figure = _panels(("all",))
    for arm in ("plain", "one_epoch"):
        steps, losses = results.training_losses(arm)
        _add_curve(figure, arm, steps, losses, (1, 1))
    figure.update_xaxes(title_text="step")
    figure.update_yaxes(title_text="training loss, nats")
    return style(figure, 380)


def loss_figure(results: Results) -> go.Figure:
    """Figures 5 to 8: test loss by objective over two epochs, against the baseline's after one."""
    figure = _panels(OBJECTIVE_NAMES)
    at = np.array(results.tested_epochs("baseline"))
    shown = at >= _SHOWN_FROM_EPOCH
    start = results.losses("baseline", 1.0)
    for arm in CURVE_ARMS:
        curves = np.stack([(results.losses(arm, epoch) / start - 1) * 100 for epoch in at[shown]], axis=1)
        for number in range(len(OBJECTIVE_NAMES)):
            _add_curve(figure, arm, at[shown], curves[:, :, number], (number // 3 + 1, number % 3 + 1))
    figure.add_vline(x=1.0, line={"color": "#888888", "dash": "dot", "width": 1}, row="all", col="all")
    figure.update_xaxes(title_text="epoch", row=2)
    figure.update_yaxes(title_text="change of test loss", col=1)
    figure.update_yaxes(ticksuffix="%")
    return style(figure, 680)


def gain_figure(results: Results, arms: tuple[str, ...], control: str) -> go.Figure:
    """Figures 4 and 9: cumulative AUC gain over the continual days."""
    figure = _panels((*OBJECTIVE_NAMES, "all objectives"))
    for arm in arms:
        gains = results.gains(arm, control)
        days = np.arange(1, gains.shape[1] + 1)
        for number in range(gains.shape[2]):
            _add_curve(figure, arm, days, gains[:, :, number], (number // 3 + 1, number % 3 + 1))
    figure.add_hline(y=0.0, line={"color": "#888888", "width": 1}, row="all", col="all")
    figure.update_yaxes(ticksuffix="%")
    return style(figure, 860)


def _figures(results: Results) -> dict[str, go.Figure]:
    figures = {
        "training loss with the Sparse Optimizer and without (figure 3)": training_figure(results),
        "cumulative AUC gain of the Sparse Optimizer (figure 4)": gain_figure(results, ("one_epoch",), "plain"),
    }
    if "baseline" in results.outcomes:
        figures["test loss over two epochs, against the baseline's after one (figures 5 to 8)"] = loss_figure(results)
        gains = gain_figure(results, BATCH_ARMS, "one_epoch")
        figures["cumulative AUC gain over a batch of one epoch (figure 9)"] = gains
    return figures


def write_page(path: Path, title: str, settings: list[Results], claims: list[Claim]) -> Path:
    """Write figures and verdicts as one HTML page with everything that it needs inside."""
    sections = [_verdicts(claims)]
    for results in settings:
        name = _title(results.setting)
        for heading, figure in _figures(results).items():
            embedded = figure.to_html(include_plotlyjs=False, full_html=False, config={"displayModeBar": False})
            sections.append(f"<section><h2>{html.escape(f'{name}: {heading}')}</h2>{embedded}</section>")
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style><script>{get_plotlyjs()}</script></head><body><main><h1>{html.escape(title)}</h1>"
        '<p class="note">Findings of Qiu et al. 2025 (arXiv 2505.05605). Bands are one standard error over seeds.</p>'
        f"{''.join(sections)}</main></body></html>"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_suffix(".partial")
    staged.write_text(page)
    staged.replace(path)
    return path


def _verdicts(claims: list[Claim]) -> str:
    items = []
    for claim in claims:
        name, _, verdict = claim.verdict().partition(": ")
        color = "good" if verdict.startswith("holds") else "bad"
        items.append(f'<li>{html.escape(name)}: <b class="{color}">{html.escape(verdict)}</b></li>')
    return f"<section><h2>Verdicts</h2><ul>{''.join(items)}</ul></section>"
