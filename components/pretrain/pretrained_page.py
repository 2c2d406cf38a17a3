"""A page on one pretraining: curves, what is near what, a picture of the items, and what was trained at all."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jinja2
import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from sklearn.decomposition import PCA

from components.common import parquet_files, storage
from components.common.layout import Store
from components.common.manifests import verified_bytes
from components.common.page_script import script_beside
from components.ranker.pretrained import KNOWN_FILE, NAMES_FILE, PretrainedManifest, rows_of

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("components.pretrain", "templates"), autoescape=True, undefined=jinja2.StrictUndefined
)
_COLORS = {"contrastive": "#4c6a92", "graph": "#d1703c"}
_SHOWN, _NEIGHBOURS, _DRAWN = 12, 5, 2_000


def write_page(store: Store, manifest: PretrainedManifest) -> str:
    """Write the page of tables that are there; returns its address."""
    read = partial(verified_bytes, store.pretrained(manifest.through), manifest)
    known = parquet_files.read_parquet(KNOWN_FILE, content=read(KNOWN_FILE))
    entities, degrees = known["entity"].to_numpy(zero_copy_only=False), known["degree"].to_numpy()
    by_table = {table: degrees[entities == table] for table in manifest.admitted}
    names, vectors, counts = [], np.zeros((0, manifest.embedding_dim), dtype=np.float32), np.zeros(0, dtype=np.int64)
    if any(entry.name == NAMES_FILE for entry in manifest.files):
        named = parquet_files.read_parquet(NAMES_FILE, content=read(NAMES_FILE))
        names, counts = named["name"].to_pylist(), named["degree"].to_numpy()
        vectors = rows_of(read, manifest, "item_id", named["id"].to_numpy())
    page_uri = store.report(f"pretraining-{manifest.through}")
    storage.write_bytes(page_uri, render(manifest, by_table, names, vectors, counts, script_beside(store)).encode())
    return page_uri


def render(
    manifest: PretrainedManifest,
    degrees: dict[str, np.ndarray],
    names: Sequence[str],
    vectors: np.ndarray,
    counts: np.ndarray,
    script: str,
) -> str:
    """The page as HTML.

    Args:
        manifest: Of the tables.
        degrees: Of the trained ids of each table, int64, shape (k,).
        names: Of the most engaged items, the most engaged first.
        vectors: Theirs, float32, shape (n, dim).
        counts: Their degrees, int64, shape (n,).
        script: The element with what draws the figures.
    """
    figures = {"curves": _curves(manifest.epochs, manifest.popularity), "coverage": _coverage(degrees)}
    if len(names) > 2:
        figures["picture"] = _picture(names, vectors, counts)
    return _ENVIRONMENT.get_template("pretrained.html.jinja").render(
        manifest=manifest,
        script=script,
        figures={name: _embed(figure, name) for name, figure in figures.items()},
        neighbours=_neighbours(names, vectors, counts),
        links=next((point["by_relation"] for point in reversed(manifest.epochs) if "by_relation" in point), {}),
    )


def _embed(figure: go.Figure, name: str) -> str:
    config = {"responsive": True, "displayModeBar": False}
    return figure.to_html(include_plotlyjs=False, full_html=False, div_id=f"figure-{name}", config=config)


def _curves(epochs: Sequence[dict[str, Any]], popularity: Sequence[float]) -> go.Figure:
    titles = {
        "loss": "Loss",
        "hit_at_3": "Hit@3 among uniform items",
        "hit_at_3_by_degree": "Hit@3 among items by degree",
        "mrr": "Filtered MRR of new edges",
    }
    titles = {key: title for key, title in titles.items() if any(key in point for point in epochs)}
    figure = make_subplots(rows=1, cols=len(titles), subplot_titles=[*titles.values()])
    for stage, color in _COLORS.items():
        own = [(number, point) for number, point in enumerate(epochs, start=1) if point["stage"] == stage]
        for column, key in enumerate(titles, start=1):
            shown = [(number, point[key]) for number, point in own if key in point]
            if shown:
                places, values = zip(*shown, strict=True)
                trace = go.Scatter(x=places, y=values, name=stage, line={"color": color}, showlegend=column == 1)
                figure.add_trace(trace, row=1, col=column)
    for column, rate in enumerate(popularity, start=2):
        figure.add_hline(rate, line_dash="dot", line_color="#888", annotation_text="popularity", row=1, col=column)
    figure.update_xaxes(title_text="epoch", dtick=1)
    return _style(figure, 340)


def _coverage(degrees: dict[str, np.ndarray]) -> go.Figure:
    figure = go.Figure()
    for table, own in degrees.items():
        if len(own):
            ordered = np.sort(own)[::-1]
            places = np.unique(np.geomspace(1, len(ordered), 200).astype(int)) - 1
            figure.add_trace(go.Scatter(x=places + 1, y=ordered[places], name=table, mode="lines"))
    figure.update_xaxes(type="log", title_text="trained ids, the most frequent first")
    figure.update_yaxes(type="log", title_text="edges")
    return _style(figure, 340)


def _picture(names: Sequence[str], vectors: np.ndarray, counts: np.ndarray) -> go.Figure:
    """The two directions in which the most engaged items differ most."""
    unit = vectors[:_DRAWN] / np.maximum(np.linalg.norm(vectors[:_DRAWN], axis=1, keepdims=True), 1e-12)
    pca = PCA(2, random_state=0)
    places = pca.fit_transform(unit)
    shares = pca.explained_variance_ratio_
    marker = {
        "size": 6,
        "color": np.log10(counts[:_DRAWN]),
        "colorscale": "Viridis",
        "colorbar": {"title": "log10 edges"},
    }
    figure = go.Figure(
        go.Scattergl(x=places[:, 0], y=places[:, 1], mode="markers", text=list(names[:_DRAWN]), marker=marker)
    )
    figure.update_xaxes(title_text=f"first component, {shares[0]:.0%} of the variance")
    figure.update_yaxes(title_text=f"second, {shares[1]:.0%}")
    return _style(figure, 480).update_layout(hovermode="closest")


def _neighbours(names: Sequence[str], vectors: np.ndarray, counts: np.ndarray) -> list[tuple[str, int, list[str]]]:
    """The most engaged items, each with its degree and the names of the nearest."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    found = []
    for place in range(min(_SHOWN, len(names))):
        cosines = unit @ unit[place]
        # Items that share a row with it say nothing.
        others = np.flatnonzero(~np.isclose(cosines, 1.0, atol=1e-6))
        nearest = others[np.argsort(-cosines[others], kind="stable")[:_NEIGHBOURS]]
        found.append(
            (names[place], int(counts[place]), [f"{names[other]} ({cosines[other]:.2f})" for other in nearest])
        )
    return found


def _style(figure: go.Figure, height: int) -> go.Figure:
    return figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 60, "r": 20, "t": 50, "b": 40},
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={"orientation": "h", "y": -0.2},
    )
