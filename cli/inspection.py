"""What a store holds, as plain values for scripts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from components.common import parquet_files, storage
from components.common.errors import InputError
from components.common.layout import Store
from components.common.ledger import LedgerRow, read_ledger
from components.common.manifests import read_manifest
from components.common.releases import (
    BATCH,
    DAILY,
    EXPERIMENT_CHANNEL,
    PRODUCTION_CHANNEL,
    Blessing,
    read_blessing,
    read_pointer,
)
from components.common.store_format import check_format
from components.common.trials import read_trials
from components.features.examples import EVALUATION, read_examples
from components.features.objectives import OBJECTIVE_NAMES
from components.version.manifest import VersionManifest, known_heads

if TYPE_CHECKING:
    from components.serve.client_connection import Connection


def newest_blessing(store: Store) -> Blessing | None:
    """The verdict of the latest run: a daily one if there is any."""
    for pipeline in (DAILY, BATCH):
        days = store.blessing_days(pipeline)
        if days:
            return read_blessing(store, pipeline, days[-1])
    return None


def open_store(store_uri: str) -> Store:
    """A store that is there.

    Raises:
        InputError: If it is not, or another release made it.
    """
    if not storage.list_names(storage.join_uri(store_uri, "logs")):
        raise InputError(f"{store_uri}: no such store; name one with --store, or make one with afterclick run")
    store = Store(store_uri)
    check_format(store)
    return store


def describe_store(store_uri: str) -> dict[str, Any]:
    """Published versions, days, AUC per arm, objective and day, gains, verdict and reasons.

    Raises:
        InputError: If there is no store.
    """
    store = open_store(store_uri)
    ledger, blessing, trials = read_ledger(store), newest_blessing(store), read_trials(store)
    pointers = {channel: read_pointer(store, channel) for channel in (PRODUCTION_CHANNEL, EXPERIMENT_CHANNEL)}
    return {
        "store": store_uri,
        "channels": {name: pointer.model_dump(mode="json") if pointer else None for name, pointer in pointers.items()},
        "versions": store.versions(),
        "batch_days": [str(day) for day in store.finished_days(BATCH)],
        "daily_days": [str(day) for day in store.finished_days(DAILY)],
        "arms": {arm: [str(day) for day in store.checkpoint_days(arm)] for arm in store.trained_models()},
        "auc": _aucs(ledger),
        "verdict": {**blessing.model_dump(mode="json"), "blessed": blessing.blessed, "reasons": blessing.reasons}
        if blessing
        else None,
        "trials": [trial.model_dump(mode="json", exclude={"verdicts"}) | {"answer": trial.answer} for trial in trials],
        "report": store.newest_report() if storage.exists(store.newest_report()) else None,
    }


def _aucs(ledger: list[LedgerRow]) -> dict[str, dict[str, dict[str, float | None]]]:
    """AUC by day, arm and objective."""
    aucs: dict[str, dict[str, dict[str, float | None]]] = {}
    for row in ledger:
        scores = {name: row.scores[name].auc for name in OBJECTIVE_NAMES if name in row.scores}
        aucs.setdefault(str(row.event_date), {})[row.arm] = scores
    return aucs


def ask_server(
    address: str, request_path: str, version: str, limit: int, connection: Connection | None = None
) -> tuple[str, list[dict[str, Any]]]:
    """Send a request file to a ranker server.

    Returns:
        The version that answered, and per candidate its item and the probability of each served objective.

    Raises:
        InputError: If the file is no request, or the server refuses it or cannot be reached.
    """
    from components.serve.client import RankerClient

    if not request_path:
        raise InputError("name a request's JSON file; `afterclick request` prints one")
    try:
        request = json.loads(storage.read_bytes(request_path))
    except (OSError, ValueError) as error:
        raise InputError(f"{request_path}: not a request's JSON file ({error})") from error
    with RankerClient(address, connection=connection) as client:
        ranking = client.rank(request, version)
    columns = {name: [float(value) for value in values] for name, values in ranking.probabilities.items()}
    rows = [
        {"item_id": candidate.get("item_id"), **dict(zip(columns, values, strict=True))}
        for candidate, values in zip(request["candidates"], zip(*columns.values(), strict=True), strict=True)
    ]
    return ranking.version, rows[:limit]


def predict_rows(store_uri: str, examples_uri: str, channel: str, limit: int) -> tuple[str, list[dict[str, Any]]]:
    """Predict the first rows of an examples file, or of the newest evaluation day.

    Returns:
        The version's digest, and per row its impression and the probability of each objective.

    Raises:
        InputError: If nothing is published, or there are no examples.
    """
    from components.version.predictor import load_served

    store = open_store(store_uri)
    predictor, pointer = load_served(store, channel)
    if not examples_uri:
        with_examples = set(store.example_days(EVALUATION))
        days = [day for day in store.ledger_days() if day in with_examples]
        if not days:
            raise InputError(f"{store_uri}: no evaluation examples; name a Parquet file of examples")
        table, _ = read_examples(store, EVALUATION, days[-1])
    else:
        table = parquet_files.read_parquet(examples_uri)
    table = table.slice(0, limit)
    manifest = read_manifest(store.version(pointer.version), VersionManifest)
    heads = known_heads(manifest.objectives, manifest.lineage, predictor.predict(table))
    identifiers = table["impression_id"].to_pylist() if "impression_id" in table.column_names else range(len(table))
    rows = [
        {"impression_id": identifier, **{name: float(values[row]) for name, values in heads.items()}}
        for row, identifier in enumerate(identifiers)
    ]
    return pointer.version, rows
