"""Pretrains the tables of ids on the edges of a window of log days."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial

import torch

from components.common import parquet_files, storage
from components.common.config import ResolvedConfig
from components.common.digests import digest_json
from components.common.errors import InputError
from components.common.layout import Store
from components.common.manifests import Origin, Step, find_current, read_manifest, verified_bytes
from components.common.progress import log_line
from components.engagement.edge_batches import engagement
from components.engagement.edge_stream import EdgeStream
from components.engagement.vocabulary import Known, count_ids
from components.features.events import DatasetConfig
from components.features.feature_list import FeatureConfig
from components.pretrain.artifact import known_table, names_of, root_mean_squares, united
from components.pretrain.config import PretrainConfig
from components.pretrain.entity_model import EntityModel, entity_features
from components.pretrain.judge import HeldOut
from components.pretrain.pretrained_page import write_page
from components.pretrain.pretrainer import CONTRASTIVE, GRAPH, Pretrainer
from components.ranker.pretrained import KNOWN_FILE, NAMES_FILE, PretrainedManifest
from components.tables.model_state import ModelState, load_weights
from components.tables.processes import Process, joined_processes
from components.tables.resume_points import PointFolder
from components.tables.shard_layout import HeldRows

STEP = Step("pretrain")


def pretrain(
    store_uri: str, dataset: DatasetConfig, features: FeatureConfig, config: PretrainConfig, through: date
) -> PretrainedManifest:
    """Pretrain on the log days until `through`, which is held out to judge the epochs, and trained on last.

    Tables of the same recipe with an earlier window are where a refresh starts, so that spaces do not turn.

    Returns:
        The tables' manifest; tables that exist for the same edges and recipe are kept.

    Raises:
        InputError: If edges are missing, or too few ids are on enough of them.
    """
    store, days = Store(store_uri), config.edges.window(dataset, through)
    own = entity_features(features, config.edges.entities)
    with joined_processes(config.device) as process:
        first, last = (EdgeStream(store, part, config.relations, config.pool_edges) for part in (days[:-1], days[-1:]))
        parent = _parent(store, own, config, through)
        edges = digest_json([manifest.content_digest for manifest in (*first.manifests, *last.manifests)])
        inputs = {"edges": edges, "parent": parent.content_digest if parent else ""}
        origin = STEP.origin(inputs, {"features": own.digest(), "recipe": config.recipe()})
        run = _Run(store, days, (first, last), own, config, parent, origin, process)
        done = find_current(store.pretrained(through), PretrainedManifest, origin)
        if done is not None:
            log_line(STEP.name, f"{days[0]}..{through}: pretrained tables are there, nothing to do")
            storage.remove(store.pretraining_points(through))
            if process.is_first:
                write_page(store, done)
            return done
        torch.set_num_threads(config.num_threads)
        made = process.agreed(_train(run))
        if process.is_first:
            log_line(STEP.name, f"{through}: {write_page(store, made)}")
        return made


@dataclass(frozen=True)
class _Run:
    """What tables are made from: the log days, their edges but for the last day's and the last day's, and how."""

    store: Store
    days: list[date]
    streams: tuple[EdgeStream, EdgeStream]
    features: FeatureConfig
    config: PretrainConfig
    parent: PretrainedManifest | None
    origin: Origin
    process: Process

    @property
    def through(self) -> date:
        return self.days[-1]


def _train(run: _Run) -> PretrainedManifest | None:
    """Train and write the tables; their manifest on the first process, None on the others."""
    config, store = run.config, run.store
    known = _known(run.streams[0], run.features, config)
    state = _new_state(run.features, config, run.process)
    if run.parent is not None:
        before = store.pretrained(run.parent.through)
        load_weights(state.model, before, partial(verified_bytes, before, run.parent), state.held)
        log_line(STEP.name, f"starts from the tables through {run.parent.through}")
    points = PointFolder(STEP.name, store.pretraining_points(run.through), run.origin, run.process, 1)
    held_out = HeldOut.of(config, run.features, known, run.streams[0], run.streams[1].whole())
    log_line(STEP.name, f"{run.days[0]}..{run.through}: {_shown(run.streams, known, held_out)}")
    judge = partial(held_out.figures, state, config, known)
    epochs = Pretrainer(state, config, known, run.streams, points).run(judge)
    state.check_finite(STEP.name)
    trained = united(known)
    manifest = PretrainedManifest(
        origin=run.origin,
        features=run.features,
        embedding_dim=config.embedding_dim,
        first_day=run.days[0],
        through=run.through,
        recipe=config.recipe(),
        admitted={entity: len(ids.ids) for entity, ids in trained.items()},
        seen={entity: ids.num_seen for entity, ids in trained.items()},
        root_mean_square=root_mean_squares(state, run.features, trained),
        epochs=tuple(epochs),
        popularity=held_out.popularity,
        parent=run.parent.content_digest if run.parent else "",
    )
    write = partial(_write, run, state, trained)
    made = run.process.write_artifact(store.pretrained(run.through), manifest, write)
    points.clear()
    return made


def _write(run: _Run, state: ModelState[EntityModel], trained: dict[str, Known], folder: str) -> Iterator[str]:
    """Write the weights, and what goes with them; yields the names of this process's files."""
    yield from state.write_weights(folder)
    if not run.process.is_first:
        return
    tables = {KNOWN_FILE: known_table(trained)}
    if "item_id" in trained:
        tables[NAMES_FILE] = names_of(run.store, run.days, run.features, trained["item_id"])
    for name, table in tables.items():
        parquet_files.write_parquet(storage.join_uri(folder, name), table)
        yield name


def _new_state(features: FeatureConfig, config: PretrainConfig, process: Process) -> ModelState[EntityModel]:
    def make(held: HeldRows | None) -> EntityModel:
        torch.manual_seed(config.seed)
        return EntityModel(features, config, held)

    batch_size = max(stage.batch_size for stage in (config.contrastive, config.graph) if stage is not None)
    return ModelState.make(make, features, config.optimizer, batch_size, config.sharding, process)


def _parent(store: Store, features: FeatureConfig, config: PretrainConfig, through: date) -> PretrainedManifest | None:
    """The newest tables of the same recipe with an earlier window."""
    for day in reversed([day for day in store.pretrained_days() if day < through]):
        manifest = read_manifest(store.pretrained(day), PretrainedManifest)
        if manifest.features == features and manifest.recipe == config.recipe():
            return manifest
        log_line(STEP.name, f"the tables through {day} are of another recipe: no start for these")
    return None


def _known(stream: EdgeStream, features: FeatureConfig, config: PretrainConfig) -> dict[str, dict[str, Known]]:
    """The ids that take part, by stage and entity.

    Raises:
        InputError: If a stage that is asked for has none.
    """
    every, known = [*range(len(config.relations))], {}
    for stage, chosen in ((CONTRASTIVE, engagement(config.relations)), (GRAPH, every)):
        if getattr(config, stage) is None:
            continue
        found = count_ids(stream.pools(), config.relations, chosen, features, config.admit_after)
        ends = {end for number in chosen for end in (config.relations[number].source, config.relations[number].target)}
        empty = [entity for entity in sorted(ends) if not len(found[entity].ids)]
        if (empty and stage == CONTRASTIVE) or len(empty) == len(ends):
            raise InputError(
                f"pretrain: no {empty[0]} is on {config.admit_after} edges of "
                f"{[config.relations[number].name for number in chosen]} in the window: give it more days, or make "
                "admit_after smaller"
            )
        known[stage] = found
    return known


def _shown(streams: tuple[EdgeStream, EdgeStream], known: dict[str, dict[str, Known]], held_out: HeldOut) -> str:
    trained = united(known)
    ids = ", ".join(f"{len(own.ids)} of {own.num_seen} {entity}" for entity, own in trained.items())
    popular = " and ".join(f"{rate:.3f}" for rate in held_out.popularity) or "none"
    return (
        f"{len(streams[0])} edges, {len(streams[1])} held out; trained: {ids}; {held_out.num_pairs} held-out pairs, of "
        f"which popularity hits {popular}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Pretrain on the edges until a day; also under torchrun."""
    parser = argparse.ArgumentParser(prog="python -m components.pretrain", description=main.__doc__)
    for name in ("store-uri", "config-uri", "through"):
        parser.add_argument(f"--{name}", required=True)
    given = parser.parse_args(arguments)
    main_pretrain(given.store_uri, given.config_uri, given.through)


def main_pretrain(store_uri: str, config_uri: str, through: str) -> str:
    """`pretrain` under a run's configuration; the tables' digest."""
    config = ResolvedConfig.open(config_uri)
    sections = (config.section(DatasetConfig, "dataset"), config.section(FeatureConfig, "features"))
    own = config.section(PretrainConfig, "pretrain")
    return pretrain(store_uri, *sections, own, date.fromisoformat(through)).content_digest
