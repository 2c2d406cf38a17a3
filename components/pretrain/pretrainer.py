"""The two stages of pretraining, step by step; what is killed goes on to the same bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from components.common.progress import Progress, log_line
from components.engagement.contrastive import bce_loss, contrastive_loss
from components.engagement.edge_batches import Batches, EdgeBatch, engagement
from components.engagement.edge_stream import EdgeStream
from components.engagement.vocabulary import Known
from components.pretrain.config import PretrainConfig
from components.pretrain.entity_model import EntityModel, direction
from components.pretrain.link_prediction import link_loss
from components.tables.model_state import ModelState
from components.tables.resume_points import PointFolder

CONTRASTIVE, GRAPH = "contrastive", "graph"


@dataclass
class Position:
    """How far a run is.

    Attributes:
        stage: Number of the stage.
        epoch: Number of the epoch in it; the one after the last is the held-out day's.
        batch: Batches done in the epoch.
        step: Updates in all.
        loss: Sum of the epoch's losses so far.
        points: One for every epoch that is done.
    """

    stage: int = 0
    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss: float = 0.0
    points: list[dict[str, Any]] = field(default_factory=list)


class Pretrainer:
    """Trains tables on edges; every epoch of a stage is judged on the held-out day, which is trained on last."""

    def __init__(
        self,
        state: ModelState[EntityModel],
        config: PretrainConfig,
        known: dict[str, dict[str, Known]],
        days: tuple[EdgeStream, EdgeStream],
        points: PointFolder,
    ) -> None:
        """Train in place.

        Args:
            state: The tables.
            config: The section.
            known: By stage and entity, the ids that take part.
            days: The edges of the window but for its last day, and of that day.
            points: Where to go on from.
        """
        self._state, self._config, self._known, self._points = state, config, known, points
        self._days, self.position = days, Position()
        self._stages = [name for name in (CONTRASTIVE, GRAPH) if getattr(config, name) is not None]

    def run(self, judge: Callable[[str], dict[str, Any]]) -> list[dict[str, Any]]:
        """Train to the end, from the newest point if there is one.

        Args:
            judge: Measures the tables after an epoch of a stage.

        Returns:
            For every epoch its stage, its mean loss and what `judge` says.
        """
        newest = self._points.newest()
        if newest is not None:
            self._state.read(*newest)
            self.position = Position(**self._points.progress(newest))
            log_line("pretrain", f"goes on after step {self.position.step}")
        for number in range(self.position.stage, len(self._stages)):
            if number > self.position.stage:
                self.position = Position(stage=number, step=self.position.step, points=self.position.points)
            self._train_stage(self._stages[number], judge)
        return self.position.points

    def _train_stage(self, stage: str, judge: Callable[[str], dict[str, Any]]) -> None:
        epochs = getattr(self._config, stage).epochs
        for epoch in range(self.position.epoch, epochs + 1):
            if epoch > self.position.epoch:
                self.position.epoch, self.position.batch, self.position.loss = epoch, 0, 0.0
            is_last = epoch == epochs
            self._train_epoch(stage, self._days[1 if is_last else 0])
            if not is_last and self._is_new(stage, epoch):
                point = {"stage": stage, "epoch": epoch + 1, "loss": self.position.loss / max(self.position.batch, 1)}
                self.position.points.append(point | judge(stage))
                shown = ", ".join(
                    f"{key} {value:.4g}"
                    for key, value in self.position.points[-1].items()
                    if key not in ("stage", "by_relation")
                )
                log_line("pretrain", f"{stage}: {shown}")

    def _is_new(self, stage: str, epoch: int) -> bool:
        """Whether an epoch has no point yet: a run may have been killed behind its last step."""
        return not any(point["stage"] == stage and point["epoch"] == epoch + 1 for point in self.position.points)

    def _train_epoch(self, stage: str, stream: EdgeStream) -> None:
        settings, position = getattr(self._config, stage), self.position
        chosen = engagement(self._config.relations) if stage == CONTRASTIVE else [*range(len(self._config.relations))]
        share, features = self._state.process.share, self._state.features
        cutter = Batches(self._config.relations, features, self._known[stage], chosen, share)
        seed = self._seed(position.epoch)
        cut = cutter.together if stage == CONTRASTIVE else cutter.by_relation
        progress = Progress(
            f"pretrain {stage} epoch {position.epoch + 1}", max(-(-len(stream) // settings.batch_size), 1)
        )
        self._state.model.train()
        for number, batch in enumerate(cut(stream, settings.batch_size, seed)):
            if number < position.batch:
                continue
            loss = self._step(stage, batch)
            position.batch, position.step, position.loss = number + 1, position.step + 1, position.loss + loss
            progress.update(number + 1, f"loss {position.loss / position.batch:.4f}")
            if position.step % self._config.resume_steps == 0:
                self._points.save(position.step, asdict(position), self._state.write)

    def _step(self, stage: str, batch: EdgeBatch) -> float:
        """One update; gives the loss.

        Raises:
            FloatingPointError: If the loss is not finite, before the update.
        """
        optimizer, process = self._state.optimizer, self._state.process
        optimizer.zero_grad()
        loss = self._contrastive(batch) if stage == CONTRASTIVE else self._link(batch)
        value = float(sum(process.gathered(float(loss.detach())))) / process.share.world_size
        if not np.isfinite(value):
            raise FloatingPointError(
                f"pretrain {stage}: the loss at step {self.position.step} is not finite; lower "
                "pretrain.optimizer.learning_rate"
            )
        loss.backward()
        process.average_gradients(self._state.model.net.parameters())
        optimizer.step()
        return value

    def _contrastive(self, batch: EdgeBatch) -> Tensor:
        config, known = self._config.contrastive, self._known[CONTRASTIVE]["item_id"]
        assert config is not None
        randoms = known.draw(self._generator(), config.num_negatives)
        ids = (self._tensor(batch.sources), self._tensor(batch.targets), self._tensor(randoms))
        users, items, others = self._state.model.vectors(
            [("user_id", ids[0]), ("item_id", ids[1]), ("item_id", ids[2])]
        )
        vectors, net = (users, items, others), self._state.model.net
        if config.loss == "bce":
            return bce_loss(net.bias, vectors, ids)
        degrees = known.degrees[known.places(batch.targets)] / known.degrees.sum()
        shares = torch.from_numpy(degrees).to(ids[0].device, torch.float32)
        temperature, given = net.temperature(config.temperature_range), (shares, 1 / len(known.ids))
        return contrastive_loss(temperature, vectors, ids, given, config.in_batch, config.log_q)

    def _link(self, batch: EdgeBatch) -> Tensor:
        config, relation = self._config.graph, self._config.relations[batch.relation]
        assert config is not None
        generator, losses = self._generator(), []
        ends = ((relation.source, batch.sources), (relation.target, batch.targets))
        drawn = [self._drawn(generator, entity) for entity, _ in ends]
        ids = [self._tensor(part) for part in (batch.sources, batch.targets, *drawn)]
        sources, targets, other_sources, other_targets = self._state.model.vectors(
            [(relation.source, ids[0]), (relation.target, ids[1]), (relation.source, ids[2]), (relation.target, ids[3])]
        )
        for is_reverse, heads, tails, others, is_edge in (
            (False, sources, targets, other_targets, ids[1][:, None] == ids[3]),
            (True, targets, sources, other_sources, ids[0][:, None] == ids[2]),
        ):
            number = direction(self._config.relations, batch.relation, is_reverse)
            losses.append(link_loss(self._state.model.net, config, number, heads, tails, others, is_edge))
        return (losses[0] + losses[1]) / 2

    def _drawn(self, generator: np.random.Generator, entity: str) -> np.ndarray:
        """Ids that one end of a batch's edges is told from: by degree and uniformly."""
        config, known = self._config.graph, self._known[GRAPH][entity]
        assert config is not None
        often = round(config.num_negatives * config.negatives_by_degree)
        rest = config.num_negatives - often
        return np.concatenate([known.draw(generator, often, by_degree=True), known.draw(generator, rest)])

    def _tensor(self, ids: np.ndarray) -> Tensor:
        return torch.from_numpy(ids).to(self._state.process.device)

    def _generator(self) -> np.random.Generator:
        rank = self._state.process.share.rank
        return np.random.default_rng([self._config.seed, self.position.stage, self.position.step, rank])

    def _seed(self, epoch: int) -> int:
        return ((self._config.seed * 10 + self.position.stage) * 1_000 + epoch) % 2**31
