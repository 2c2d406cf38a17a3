"""The training step, and an epoch of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor, distributed, nn
from torchrec.distributed import DistributedModelParallel

from components.common.progress import Progress
from components.features.objectives import OBJECTIVE_NAMES
from components.ranker.batch import Batch
from components.ranker.dataset import ExampleSet
from components.ranker.ranker import Ranker, objective_losses
from components.tables.optimizer import ModelOptimizer
from components.train.config import TrainConfig
from components.train.curves import LossCurve
from components.train.single_stage import EngagementPairs


class Trainer:
    """Trains a ranker on batches, keeping count of the steps taken.

    Attributes:
        model: The ranker; its tables are shards when it is spread over processes.
        parallel: What to call for logits: the ranker, or what spreads it over processes.
        device: Where the model is.
        step: Updates so far.
        curve: Training loss.
        opening_seconds: Time until the epochs' first batches, in which the first pool of each is read.
        seconds: Time spent in epochs after that.
        waited_seconds: The part of it in which no batch was ready.
    """

    def __init__(
        self,
        model: Ranker,
        optimizer: ModelOptimizer,
        config: TrainConfig,
        name: str,
        step: int = 0,
        parallel: DistributedModelParallel | None = None,
        pairs: EngagementPairs | None = None,
    ) -> None:
        """Continue from `step` steps already taken; `name` is shown with the progress; with `pairs`, in one stage."""
        self.model, self.optimizer, self.step = model, optimizer, step
        self.parallel = parallel or model
        self._loss = model.loss if parallel is None else partial(sharded_loss, parallel)
        self._pairs, self.curve = pairs, LossCurve()
        self.opening_seconds = self.seconds = self.waited_seconds = 0.0
        self._config, self._name = config, name
        self.device = model.embeddings.weight.device
        self._rank = distributed.get_rank() if parallel is not None else 0
        self._drops_out = any(isinstance(part, nn.Dropout) and part.p > 0 for part in model.modules())
        weights = [config.objective_weights.get(name, 1.0) for name in OBJECTIVE_NAMES]
        self._weights = torch.tensor(weights, device=self.device)

    def train_step(self, batch: Batch) -> None:
        """One update.

        Raises:
            FloatingPointError: If the loss, or the gradients that are to be clipped, are not finite; the model is as it
                was before the batch.
        """
        self.optimizer.zero_grad()
        if self._drops_out:
            # By step and process: a run that goes on draws what it would have drawn, and processes differ.
            torch.manual_seed(((self._config.seed * 1_000_003 + self.step) * 65_536 + self._rank) % 2**63)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._config.precision == "bfloat16"):
            total, losses = self._loss(batch.to(self.device), self._weights)
        if self._pairs is not None:
            total = total + self._pairs.loss(self.model.embeddings, self.step)
        # Of the whole batch: over several processes, all stop or none.
        if not torch.isfinite(losses).all():
            by_objective = dict(zip(OBJECTIVE_NAMES, losses.tolist(), strict=True))
            raise FloatingPointError(
                f"{self._name}: the loss at step {self.step} is not finite: {by_objective}; lower "
                "optimizer.learning_rate or set optimizer.max_gradient_norm"
            )
        total.backward()
        self.optimizer.clip_gradients(f"{self._name} at step {self.step}")
        self.optimizer.step()
        self.step += 1
        self.curve.add(losses)

    def count_rows(self, parts: Iterable[ExampleSet]) -> None:
        """Count the look-ups of all examples ahead of training on them."""
        assert self.optimizer.tables is not None
        for part in parts:
            for batch in part.in_order(self._config.batch_size):
                self.optimizer.tables.count(*self.model.embeddings.row_counts(batch.to(self.device).sparse))

    def train_epoch(
        self,
        batches: Iterable[Batch],
        num_examples: int,
        epoch: int,
        first: int = 0,
        after_step: Callable[[int], bool] | None = None,
    ) -> None:
        """Train on all batches; a point of the loss curve ends every `steps_per_point` steps, and with the last.

        Args:
            batches: Those of the epoch, from number `first` on.
            num_examples: Of the whole epoch.
            epoch: Its number; before every epoch but the first the recipe may redraw the tables.
            first: Batches that an interrupted run has trained on already.
            after_step: Told the batches done; ends the epoch when it returns False.
        """
        config, num_batches = self._config, -(-num_examples // self._config.batch_size)
        if first == 0:
            self.optimizer.start_epoch(epoch, config.seed)
        self.parallel.train()
        progress = Progress(f"{self._name} epoch {epoch + 1}", num_batches)
        asked, coming = time.monotonic(), iter(batches)
        batch = next(coming, None)
        started = time.monotonic()
        self.opening_seconds += started - asked
        for number in range(first + 1, num_batches + 1):
            assert batch is not None, "fewer batches than the examples make"
            self.train_step(batch)
            examples = min(number * config.batch_size, num_examples)
            if number % config.steps_per_point == 0 or number == num_batches:
                self.curve.close_point(self.step, epoch, examples)
            rate = (examples - first * config.batch_size) / (time.monotonic() - started)
            progress.update(number, f"{rate:,.0f} examples/s")
            if after_step is not None and not after_step(number):
                break
            asked = time.monotonic()
            batch = next(coming, None)
            self.waited_seconds += time.monotonic() - asked
        self.seconds += time.monotonic() - started


def sharded_loss(parallel: DistributedModelParallel, batch: Batch, weights: Tensor) -> tuple[Tensor, Tensor]:
    """`Ranker.loss` of a batch of which each process has a part; all processes at once.

    Args:
        parallel: The sharded ranker.
        batch: This process's rows.
        weights: Of the objectives, shape (objectives,).

    Returns:
        What to differentiate here: its gradients, averaged over the processes, are those of the whole batch's total.
        And each objective's mean over the whole batch's rows that take part, shape (objectives,), equal everywhere.
    """
    taking_part = batch.masks.sum(dim=0)
    distributed.all_reduce(taking_part)
    shares = objective_losses(parallel(batch), batch, taking_part)
    means = shares.detach().clone()
    distributed.all_reduce(means)
    return (shares * weights).sum() * distributed.get_world_size(), means
