"""Scores models on one day: the arms, the version in production, and the yardstick."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property, partial

import numpy as np
import pyarrow as pa

from components.common.ahead import ahead
from components.common.arms import ArmList, arm_of, find_failure
from components.common.digests import digest_json
from components.common.errors import InputError
from components.common.layout import Store
from components.common.ledger import LOGISTIC_REGRESSION, SERVED, LedgerRow, ObjectiveScore
from components.common.manifests import Step
from components.common.progress import log_line
from components.common.releases import BATCH, Pointer
from components.evaluate.config import EvaluationConfig
from components.evaluate.logistic_regression import Yardstick
from components.evaluate.metrics import score_objective
from components.features.events import DatasetConfig
from components.features.example_columns import identifier_of
from components.features.examples import (
    EVALUATION,
    TRAINING,
    check_made_alike,
    read_examples,
    read_examples_manifest,
)
from components.features.feature_list import FeatureConfig
from components.features.learned_rows import RowIndex
from components.features.objectives import OBJECTIVE_NAMES
from components.features.vectors import KnownVectors
from components.ranker.checkpoint import CheckpointManifest, TrainedRanker, find_checkpoint, read_indexes
from components.ranker.dataset import ExampleSet, tensors_of
from components.version.manifest import known_heads
from components.version.predictor import Predictor
from components.version.version import Version

STEP = Step("evaluate", 3)


@dataclass(frozen=True)
class Model:
    """One model to be scored.

    Attributes:
        name: Its name in the ledger.
        features: Its feature list.
        trained_through: The last day that it was trained on.
        checkpoint_digest: Which checkpoint; of the yardstick, which is fitted to be scored, what it is fitted from.
        recipe_digest: How it was trained.
        made_from: Digest of the files that predict.
        predict: From the day's examples to probabilities by objective, shape (n,) each.
        indexes: Gives those of its exact ids, by table.
    """

    name: str
    features: FeatureConfig
    trained_through: date
    checkpoint_digest: str
    recipe_digest: str
    made_from: str
    predict: Callable[[pa.Table, ExampleSet], dict[str, np.ndarray]]
    indexes: Callable[[], Mapping[str, RowIndex]]


class Scorer:
    """The models of one day, and that day's examples."""

    def __init__(
        self, store: Store, dataset: DatasetConfig, config: EvaluationConfig, event_date: date, trained_through: date
    ) -> None:
        """Score models that were trained through one day on a later one.

        Raises:
            InputError: If the day has no evaluation examples.
        """
        self._store, self._dataset, self._config = store, dataset, config
        self._event_date, self._trained_through = event_date, trained_through
        self._encoded: dict[str, ExampleSet] = {}
        self._vectors: dict[tuple[str, date, date], KnownVectors] = {}
        self._examples_digest = read_examples_manifest(store, EVALUATION, event_date).content_digest

    def models(self, arms: ArmList, production: Pointer | None) -> list[Model]:
        """All starts of the arms that can be scored, the version in production, if any, and the yardstick.

        An arm that failed, is new, or has been taken up again and is behind, is left out, with a line that says so.

        Raises:
            InputError: If the arm in production has no checkpoint, or any has none after the batch run, or the version
                in production is damaged.
        """
        found = (self._checkpoint(model, arms.production) for model in arms.models)
        checkpoints = [checkpoint for checkpoint in found if checkpoint is not None]
        models = [self._arm(checkpoint) for checkpoint in checkpoints]
        if production is not None:
            models.append(self._served(production))
        if self._config.logistic_regression and checkpoints:
            models.append(self._yardstick(checkpoints[0]))
        return models

    def _checkpoint(self, model: str, production: str) -> CheckpointManifest | None:
        arm, through = arm_of(model), self._trained_through
        failure = find_failure(self._store, arm)
        if failure is not None and failure.day <= through:
            log_line("evaluate", f"{self._event_date}: {model} is left out: failed on {failure.day}: {failure.reason}")
            return None
        checkpoint = find_checkpoint(self._store, model, through)
        if checkpoint is None and (arm == production or not self._store.finished_days(BATCH)):
            uri = self._store.checkpoint(model, through)
            raise InputError(f"{uri}: no checkpoint to score; train {model} through {through} first")
        if checkpoint is None:
            log_line("evaluate", f"{self._event_date}: {model} is left out: it has no checkpoint through {through} yet")
        return checkpoint

    def _arm(self, checkpoint: CheckpointManifest) -> Model:
        lineage = checkpoint.lineage

        def predict(table: pa.Table, examples: ExampleSet) -> dict[str, np.ndarray]:
            ranker = TrainedRanker.load(self._store, lineage.arm, lineage.trained_through)
            probabilities = ranker.predict(examples, self._config.batch_size)
            return known_heads(OBJECTIVE_NAMES, lineage, probabilities)

        through, digest = lineage.trained_through, checkpoint.checkpoint_digest
        indexes = partial(read_indexes, self._store.checkpoint(lineage.arm, through), checkpoint)
        return Model(lineage.arm, checkpoint.features, through, digest, lineage.recipe_digest, digest, predict, indexes)

    def _served(self, pointer: Pointer) -> Model:
        """The published files, as a server has them: INT4 tables and ONNX, whatever the model code is today."""
        version = Version.published(self._store, pointer.version)

        def predict(table: pa.Table, examples: ExampleSet) -> dict[str, np.ndarray]:
            probabilities = Predictor.from_version(version).predict(table)
            return known_heads(version.manifest.objectives, version.manifest.lineage, probabilities)

        manifest, through = version.manifest, pointer.trained_through
        recipe_digest, digest = manifest.lineage.recipe_digest, pointer.checkpoint_digest
        return Model(
            SERVED, manifest.features, through, digest, recipe_digest, version.digest, predict, version.indexes
        )

    def _yardstick(self, checkpoint: CheckpointManifest) -> Model:
        """A logistic regression on the newest of the days that the arms have seen."""
        days = self._dataset.open_days(checkpoint.lineage.first_day, self._trained_through)
        days = days[-self._config.regression_days :]
        manifests = [read_examples_manifest(self._store, TRAINING, day) for day in days]
        indexes = partial(
            read_indexes, self._store.checkpoint(checkpoint.lineage.arm, self._trained_through), checkpoint
        )
        of_ids = [checkpoint.checkpoint_digest] if checkpoint.features.learned else []
        known = self._known(checkpoint.features, days)
        of_vectors = [known.digest] if known is not None else []
        made_of = [*(manifest.content_digest for manifest in manifests), *of_ids, *of_vectors]
        fitted_from = digest_json([*made_of, self._config.regression_c])

        def predict(table: pa.Table, examples: ExampleSet) -> dict[str, np.ndarray]:
            of_ids, rate = indexes(), check_made_alike(manifests).negative_keep_rate
            read = (read_examples(self._store, TRAINING, day)[0] for day in days)
            training = (tensors_of(of_day, checkpoint.features, False, of_ids, known) for of_day in read)
            return Yardstick(ahead(training, 1), rate, self._config.regression_c, self._config.served).predict(examples)

        features, through = checkpoint.features, self._trained_through
        return Model(LOGISTIC_REGRESSION, features, through, fitted_from, fitted_from, fitted_from, predict, indexes)

    def inputs_digest(self, model: Model) -> str:
        """Everything that a model's scores are computed from, and by which settings."""
        settings = self._config.model_dump(mode="json", include={"num_replicates", "served", "slices", "known_users"})
        known = self._known(model.features, [self._event_date])
        of_vectors = [known.digest] if known is not None else []
        return digest_json([STEP.version, model.made_from, self._examples_digest, settings, *of_vectors])

    def _known(self, features: FeatureConfig, days: list[date]) -> KnownVectors | None:
        """The pretrained vectors that impressions of some days know, if there are any."""
        if not features.vectors:
            return None
        asked = (features.digest(), days[0], days[-1])
        if asked not in self._vectors:
            self._vectors[asked] = KnownVectors.before(self._store, features, days[0], days[-1])
        return self._vectors[asked]

    @cached_property
    def _table(self) -> pa.Table:
        return read_examples(self._store, EVALUATION, self._event_date)[0]

    def _examples(self, model: Model) -> ExampleSet:
        # Where rows are learned, ids have others in each model.
        digest = f"{model.features.digest()} {model.made_from if model.features.learned else ''}"
        if digest not in self._encoded:
            known = self._known(model.features, [self._event_date])
            self._encoded = {digest: tensors_of(self._table, model.features, True, model.indexes(), known)}
        return self._encoded[digest]

    def _slices(self, examples: ExampleSet) -> dict[str, np.ndarray]:
        """Which rows each slice has."""
        slices: dict[str, np.ndarray] = {}
        if self._config.known_users and examples.features.sequence_names:
            is_known = examples.lengths.numpy() > 0
            slices |= {"users with earlier actions": is_known, "users without earlier actions": ~is_known}
        for wanted in self._config.slices:
            column = self._table[wanted.column].to_numpy()
            for value in wanted.values:
                slices[f"{wanted.column}={value}"] = column == identifier_of(wanted.column, value)
        return slices

    def score(self, model: Model) -> LedgerRow:
        """Score one model.

        Raises:
            InputError: If its files are damaged.
        """
        examples = self._examples(model)
        probabilities = model.predict(self._table, examples)
        slices = self._slices(examples)
        scores: dict[str, ObjectiveScore] = {}
        for number, name in enumerate(OBJECTIVE_NAMES):
            if name in probabilities:
                taking_part = examples.masks[:, number].numpy() > 0
                scores[name] = score_objective(
                    examples.labels[:, number].numpy()[taking_part],
                    probabilities[name][taking_part],
                    examples.users[taking_part],
                    self._config.num_replicates if name in self._config.served else 0,
                    {of: rows[taking_part] for of, rows in slices.items()} if name in self._config.served else None,
                )
        return LedgerRow(
            arm=model.name,
            event_date=self._event_date,
            trained_through=model.trained_through,
            checkpoint_digest=model.checkpoint_digest,
            recipe_digest=model.recipe_digest,
            examples_digest=self._examples_digest,
            inputs_digest=self.inputs_digest(model),
            scores=scores,
            unknown_ids=_unknown_ids(model, examples),
        )


def _unknown_ids(model: Model, examples: ExampleSet) -> dict[str, float]:
    """Of the rows looked up by exact ids, and of pretrained vectors, the share that is of no id's own, by table."""
    features, shares = model.features, {}
    for feature, own in zip(features.vectors, examples.vectors.split([*features.vector_dims], dim=1), strict=True):
        shares[feature.name] = float((own == 0).all(dim=1).double().mean()) if len(own) else 0.0
    for table, exact in features.exact_ids.items():
        if table in features.list_positions:
            ids, weights = examples.positions(table)
            rows = ids[weights > 0]
        else:
            rows = examples.categorical[:, features.categorical_names.index(table)].numpy()
        shares[table] = float((rows >= exact.capacity).mean()) if len(rows) else 0.0
    return shares
