"""Commands for pretrained tables: making them, and the items nearest to one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from cli.command import DEMO_STORE, ConfigOption, DebugOption, StoreOption, clear_errors, console
from components.common import parquet_files
from components.common.errors import InputError
from components.common.layout import Store
from components.common.manifests import read_manifest, verified_bytes, verified_content


@clear_errors
def pretrain(
    config: ConfigOption,
    store: StoreOption,
    as_of: Annotated[str, typer.Option(help="Only events before this UTC day are seen; today if not given.")] = "",
    debug: DebugOption = False,
) -> None:
    """Pretrain the tables of ids on all engagement in the logs, for the batches that are trained after it.

    Arms with `pretrained` start from them. Spread over GPUs: torchrun -m components.pretrain.
    """
    from cli.due_runs import pretrain_due

    pretrain_due(config, store, as_of or None)


@clear_errors
def neighbours(
    item: Annotated[str, typer.Argument(help="An item_id of the logs.")],
    store: StoreOption = DEMO_STORE,
    count: Annotated[int, typer.Option(min=1, help="How many.")] = 10,
    debug: DebugOption = False,
) -> None:
    """The items nearest to one, by the newest pretrained tables."""
    console.print(neighbours_table(find_neighbours(Store(store), item, count)))


@dataclass(frozen=True)
class Neighbours:
    """The items nearest to one.

    Attributes:
        item: Its name in the logs.
        names: Of the nearest, nearest first.
        cosines: Of the angles to them, shape (k,).
        degrees: How often each was engaged, shape (k,).
    """

    item: str
    names: list[str]
    cosines: np.ndarray
    degrees: np.ndarray


def find_neighbours(store: Store, item: str, count: int) -> Neighbours:
    """The nearest of the most engaged items, by the newest pretrained tables.

    Raises:
        InputError: If there are no tables, or the item is not among those.
    """
    from components.ranker.pretrained import NAMES_FILE, PretrainedManifest, rows_of

    days = store.pretrained_days()
    if not days:
        raise InputError(f"{store.root}: no pretrained tables; run `afterclick pretrain`")
    uri = store.pretrained(days[-1])
    manifest = read_manifest(uri, PretrainedManifest)
    entry = next((entry for entry in manifest.files if entry.name == NAMES_FILE), None)
    if entry is None:
        raise InputError(f"{uri}: these tables have no items; add a relation of item_id to pretrain.edges")
    path, content = verified_content(uri, entry)
    known = parquet_files.read_parquet(path, content=content)
    names = known["name"].to_pylist()
    if item not in names:
        examples = ", ".join(names[:5])
        raise InputError(f"{item}: not among the {len(names)} most engaged items of {uri}, such as {examples}")
    ids = known["id"].to_numpy()
    vectors = rows_of(partial(verified_bytes, uri, manifest), manifest, "item_id", ids)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    own = names.index(item)
    cosines = vectors @ vectors[own]
    # Items that share a row with it would be nearest, and say nothing.
    others = np.flatnonzero(ids != ids[own])
    nearest = others[np.argsort(-cosines[others], kind="stable")[:count]]
    return Neighbours(item, [names[place] for place in nearest], cosines[nearest], known["degree"].to_numpy()[nearest])


def neighbours_table(found: Neighbours) -> Table:
    """For the terminal."""
    table = Table(title=f"Nearest to {found.item}", title_justify="left")
    for name, justify in (("item", "left"), ("cosine", "right"), ("engagements", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for name, cosine, degree in zip(found.names, found.cosines, found.degrees, strict=True):
        table.add_row(name, f"{cosine:.3f}", f"{degree}")
    return table
